from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import PalaceHeld, StateRootError
from mempalace_broker.lease.acquire import LeaseAcquisition
from mempalace_broker.lease.files import MOST, LeaseFolder, flush_palace, mend, read_leases
from mempalace_broker.lease.machine.lease import MAX_EPOCH, LeaseState, Listing, NodeKind
from mempalace_broker.lease.machine.record import SIZE, HolderId
from mempalace_broker.lease.names import parse_names
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.shared_files import SharedFolder
from tests.proctools import eventually

ME = HolderId(NodeKind.HOST, "here", "boot", "pid:[1]", 1, "1:2", 1.5, "aa")


@pytest.fixture
def folder(tmp_path: Path) -> LeaseFolder:
    made = LeaseFolder(str(tmp_path / "leases"), ME, local=True)
    made.prepare()
    return made


def test_the_folder_is_ours_alone(folder: LeaseFolder) -> None:
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    folder.prepare()


def test_a_folder_that_can_t_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateRootError, match="folder of leases"):
        LeaseFolder(str(tmp_path / "file" / "leases"), ME).prepare()


def test_write_and_read(folder: LeaseFolder) -> None:
    assert folder.create(1)
    assert folder.read(1).state == LeaseState.EMPTY
    folder.write(LeaseState.ACQUIRING, 1, busy=False)
    inode = os.stat(f"{folder.path}/000000000001").st_ino
    folder.write(LeaseState.ACTIVE, 2, busy=True)
    lease = folder.read(1)
    assert (lease.state, lease.sequence, lease.busy, lease.holder) == (LeaseState.ACTIVE, 2, True, ME)
    found = os.stat(f"{folder.path}/000000000001")
    assert (found.st_ino, found.st_size, stat.S_IMODE(found.st_mode)) == (inode, SIZE, 0o600)
    assert folder.read(2).state == LeaseState.MISSING
    folder.close()


def test_the_next_broker_of_this_kernel_knows_that_it_is_dead(folder: LeaseFolder) -> None:
    folder.create(1)
    folder.write(LeaseState.ACTIVE, 1, busy=True)
    folder.close()
    after = LeaseFolder(folder.path, ME._replace(nonce="bb"), local=True)
    assert after.observe(after.read(1)).dead
    beyond = LeaseFolder(folder.path, ME._replace(nonce="cc", boot="other", kind=NodeKind.FOREIGN))
    assert not beyond.observe(beyond.read(1)).dead


def test_half_a_record_is_unreadable(folder: LeaseFolder) -> None:
    folder.create(1)
    folder.write(LeaseState.ACTIVE, 1, busy=False)
    folder.close()
    os.truncate(f"{folder.path}/000000000001", 100)
    assert folder.read(1).state == LeaseState.UNREADABLE


def test_a_name_that_only_a_cache_still_has_is_absent(folder: LeaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker Desktop's share shows what the host removed: it is still there for stat, and open says EINVAL."""
    folder.create(1)
    folder.close()

    def phantom(opened: SharedFolder, name: str) -> int:
        raise OSError(errno.EINVAL, "Invalid argument", name)

    monkeypatch.setattr(SharedFolder, "open_read", phantom)
    assert folder.read(1).state == LeaseState.UNREADABLE, "it is listed: whatever that error means, it is in doubt"
    os.unlink(f"{folder.path}/000000000001")
    assert folder.read(1).state == LeaseState.MISSING


_RACER = """
import sys
from mempalace_broker.lease.machine.record import HolderId
from mempalace_broker.lease.files import MOST, LeaseFolder
folder = LeaseFolder(sys.argv[1], HolderId())
print("up", flush=True)
sys.stdin.readline()
print(*(epoch for epoch in range(1, 201) if folder.create(epoch)))
folder.close()
"""


def test_a_folder_that_did_not_change_is_read_once(folder: LeaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    scan = os.scandir

    def counted(fd: int) -> Any:
        reads.append(fd)
        return scan(fd)

    monkeypatch.setattr(os, "scandir", counted)
    assert folder.create(1)
    reads.clear()
    for _ in range(3):
        folder.listing()
    assert len(reads) == 3, "it changed just now"
    monkeypatch.setattr("mempalace_broker.lease.files._SETTLED_NS", -(10**12))
    for _ in range(3):
        assert folder.listing().epochs == (1,)
    assert len(reads) == 4
    before = os.stat(folder.path)

    def changed() -> bool:
        """Where the clock for files has ticked."""
        Path(folder.path, "000000000001").rename(Path(folder.path, "000000000002"))
        os.utime(folder.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        Path(folder.path, "000000000002").rename(Path(folder.path, "000000000003"))
        Path(folder.path, "000000000003").rename(Path(folder.path, "000000000001"))
        return os.stat(folder.path).st_ctime_ns != before.st_ctime_ns

    eventually(changed, what="another ctime")
    Path(folder.path, "000000000001").rename(Path(folder.path, "000000000004"))
    assert folder.listing().epochs == (4,)


def test_a_folder_that_was_replaced_is_read_anew(folder: LeaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mempalace_broker.lease.files._SETTLED_NS", -(10**12))
    assert folder.create(1)
    assert folder.listing().epochs == (1,)
    os.rename(folder.path, f"{folder.path}.old")
    with pytest.raises(FileNotFoundError):
        folder.listing()
    os.symlink(f"{folder.path}.old", folder.path)
    with pytest.raises(OSError, match=r"Not a directory|Too many"):
        folder.listing()


def test_a_generation_has_one_creator(folder: LeaseFolder) -> None:
    argv = [sys.executable, "-c", _RACER, folder.path]
    racers = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "up\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(word) for racer in racers for word in racer.communicate(timeout=30)[0].split()]
    assert sorted(won) == list(range(1, 201))


def test_names() -> None:
    names = ["000000000007", "ask-000000000007-9f2c01ab", "gone-000000000005-41", "x", "gone-1-x", "ask-", "7", ".swp"]
    strange = ("7", "ask-", "gone-1-x", "x")
    assert parse_names(names) == Listing((7,), frozenset({(5, 41)}), frozenset({7}), strange)


def test_requests_are_withdrawn_and_stale_leases_are_removed(folder: LeaseFolder) -> None:
    for epoch in (1, 2, 3):
        folder.create(epoch)
    folder.request_handover(2)
    folder.request_handover(3)
    folder.declare_gone(1, 9)
    folder.declare_gone(1, 9)
    assert folder.listing() == Listing((1, 2, 3), frozenset({(1, 9)}), frozenset({2, 3}))
    folder.remove((1,))
    assert folder.listing() == Listing((2, 3), frozenset(), frozenset({2, 3}))
    folder.remove((2,))
    folder.remove((2,))
    assert folder.listing().requested == {3}
    folder.withdraw_requests()
    assert folder.listing() == Listing((3,))
    folder.close()


def test_survey(folder: LeaseFolder, tmp_path: Path) -> None:
    assert read_leases(str(tmp_path / "none")) == (Listing(), [])
    folder.create(1)
    folder.write(LeaseState.ACTIVE, 1, busy=False)
    folder.close()
    listing, leases = read_leases(folder.path)
    assert listing.epochs == (1,)
    assert leases[0].holder == ME


def test_a_store_is_flushed_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palace = tmp_path / "palace"
    (palace / "segment").mkdir(parents=True)
    for name in ("chroma.sqlite3", "chroma.sqlite3-shm", "segment/data.bin"):
        (palace / name).touch()
    os.mkfifo(palace / "fifo")
    (tmp_path / "graph").touch()
    (tmp_path / "graph-shm").touch()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    flush_palace(str(palace), str(tmp_path / "graph"))
    assert sorted(synced) == ["chroma.sqlite3", "chroma.sqlite3-shm", "data.bin", "graph", "graph-shm"]


# -- whatever a guest puts there -----------------------------------------------------------------------

NAMES = [
    *("999999999999", "000000000000", "\u00b2" * 12, "ask-\u00b2-x", "gone-\u00b2-1", "ask-1-x", "gone-000000000001-"),
    *(f"gone-000000000001-{'9' * 200}", "000000000005x", "-1", "+00000000001", "lease", "readme"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_broker_makes_counts_for_nothing(folder: LeaseFolder, name: str) -> None:
    Path(folder.path, name).touch()
    assert folder.listing() == Listing(strange=(name,))
    assert folder.create(1)
    folder.write(LeaseState.ACTIVE, 1, busy=False)
    folder.remove((1,))
    folder.close()
    assert mend(folder.path) == [name]
    assert os.listdir(folder.path) == []


def place(path: Path, kind: str) -> None:
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "with" / "more").mkdir(parents=True)
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))


KINDS = ["link", "link to itself", "fifo", "folder", "socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_regular_file_is_not_a_lease(folder: LeaseFolder, kind: str) -> None:
    place(Path(folder.path, "000000000005"), kind)
    assert folder.listing() == Listing(strange=("000000000005",), taken=5)
    assert folder.read(5).state == LeaseState.UNREADABLE
    assert not folder.create(5)
    lease = LeaseAcquisition(folder, Clock(), Deadline.after(Clock(), 5)).run("/p")
    assert lease.holder.epoch == 6
    folder.close()
    assert mend(folder.path) == ["000000000005"]
    assert folder.listing() == Listing((6,))


@pytest.mark.parametrize("kind", ["link", "link to itself", "fifo", "socket", "link to a folder"])
def test_what_is_not_a_folder_is_refused_and_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "leases"
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to("elsewhere") if kind == "link to a folder" else place(path, kind)
    folder = LeaseFolder(str(path), ME)
    with pytest.raises(StateRootError, match="folder of leases") as refused:
        folder.prepare()
    assert "take-over --yes" in refused.value.hint
    with pytest.raises(StateRootError, match="folder of leases"):
        read_leases(str(path))
    assert mend(str(path)) == ["leases"]
    folder.prepare()
    assert folder.listing() == Listing()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_highest_epoch_is_refused_and_removed(folder: LeaseFolder) -> None:
    folder.create(MAX_EPOCH)
    folder.write(LeaseState.RELEASED, 1, busy=False)
    folder.close()
    with pytest.raises(PalaceHeld, match="highest number") as refused:
        LeaseAcquisition(folder, Clock(), Deadline.after(Clock(), 5)).run("/p")
    assert "take-over --yes" in refused.value.hint
    assert mend(folder.path) == [f"{MAX_EPOCH:012}"]
    lease = LeaseAcquisition(folder, Clock(), Deadline.after(Clock(), 5), minimum_epoch=10**500).run("/p")
    assert lease.holder.epoch == 1
    folder.close()


def test_a_request_to_hand_over_does_not_end_the_start_of_a_host(folder: LeaseFolder) -> None:
    Path(folder.path, "ask-000000000001-ffff").touch()
    assert LeaseAcquisition(folder, Clock(), Deadline.after(Clock(), 5)).run("/p").holder.epoch == 1
    folder.close()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)))
def test_any_names_are_a_listing(names: list[str]) -> None:
    listing = parse_names(names)
    assert all(0 < epoch <= MAX_EPOCH for epoch in (*listing.epochs, *listing.requested))


def test_a_lease_of_many_others_is_still_read_in_time(folder: LeaseFolder) -> None:
    for epoch in range(1, 400):
        Path(folder.path, f"{epoch:012}").touch()
    listing, leases = folder.read_all()
    assert len(listing.epochs) == 399
    assert [lease.epoch for lease in leases] == list(range(144, 400))


def test_only_the_highest_leases_count_and_what_is_beyond_them_goes_with_what_is_stale(folder: LeaseFolder) -> None:
    for epoch in range(1, MOST + 100):
        Path(folder.path, f"{epoch:012}").touch()
    listing = folder.listing()
    assert (len(listing.epochs), listing.top) == (MOST, MOST + 99)
    folder.create(MOST + 200)
    folder.remove(listing.epochs)
    assert folder.listing().epochs == (MOST + 200,)
    assert os.listdir(folder.path) == [f"{MOST + 200:012}"]


def test_ones_own_lease_counts_below_any_number_of_others(folder: LeaseFolder) -> None:
    folder.create(7)
    for epoch in range(8, MOST + 100):
        Path(folder.path, f"{epoch:012}").touch()
    assert 7 in folder.listing().epochs
    folder.remove((1,))
    assert 7 in folder.listing().epochs, "what is beyond the highest and is not below ours stays"
