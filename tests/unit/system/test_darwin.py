"""What macOS does otherwise. On Linux kqueue is a fake; on a Mac the same tests hold it against the real one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import select
import socket
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.system import darwin, kernel
from mempalace_broker.system.darwin import HangupWatch, read_statfs, true_path
from mempalace_broker.system.hangup import Hangup
from tests.fakes import kqueue

ON_A_MAC = pytest.mark.skipif(not kernel.MACOS, reason="asks the real system")


@pytest.fixture(autouse=True)
def queues(monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel.MACOS:
        kqueue.install(lambda name, value: monkeypatch.setattr(select, name, value, raising=False))
        monkeypatch.setattr(kernel, "MACOS", True)
    monkeypatch.setattr(kernel, "_ANSWERS", {})


@pytest.fixture(params=["pipe", "socket", "terminal"])
def ends(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """Two ends, the second of which is closed by the test: (the one that is watched, the other)."""
    made: list[int] = []
    if request.param == "pipe":
        read, write = os.pipe()
        made += [write, read]
    elif request.param == "socket":
        made += [end.detach() for end in socket.socketpair()]
    else:
        made += reversed(pty.openpty())
    yield made
    for fd in made:
        os.close(fd)


def test_a_reader_that_leaves_is_reported(ends: list[int]) -> None:
    with closing(HangupWatch(ends[0], writes=True)) as watch:
        assert not watch.gone()
        assert not select.select([watch.fileno()], [], [], 0)[0], "room to write keeps nobody awake"
        os.close(ends.pop())
        assert select.select([watch.fileno()], [], [], 5)[0]
        assert watch.gone()


def test_a_writer_that_leaves_is_reported_even_before_what_it_wrote_is_read() -> None:
    read, write = os.pipe()
    with closing(HangupWatch(read, writes=False)) as watch:
        os.write(write, b"unread")
        assert not watch.gone(5)
        assert not select.select([watch.fileno()], [], [], 0)[0], "unread data keeps nobody awake"
        os.close(write)
        assert watch.gone(5)
    os.close(read)


def test_what_the_other_side_reads_is_no_hangup() -> None:
    read, write = os.pipe()
    kernel.widen_pipe(write, 4096)
    with closing(HangupWatch(write, writes=True)) as watch:
        watch.gone()
        os.write(write, b"x" * 4096)
        os.read(read, 4096)
        assert not watch.gone(0.05)
        os.close(read)
        assert watch.gone(5)
    os.close(write)


def test_a_device_can_not_be_watched() -> None:
    with open(os.devnull, "w", encoding="utf-8") as null:
        with pytest.raises(OSError, match="Invalid argument"):
            HangupWatch(null.fileno(), writes=True)
        hangup = Hangup(null.fileno(), select.poll(), writes=True)
    assert not hangup.seen([(0, select.POLLIN)])


@pytest.mark.parametrize("macos", [True, False])
def test_a_poll_object_reports_it_on_both_systems(
    ends: list[int], monkeypatch: pytest.MonkeyPatch, macos: bool
) -> None:
    if kernel.LINUX:
        monkeypatch.setattr(kernel, "MACOS", macos)
    poller = select.poll()
    hangup = Hangup(ends[0], poller, writes=True)
    assert not hangup.seen(poller.poll(0))
    os.close(ends.pop())
    assert hangup.seen(poller.poll(5000))


def test_a_reader_that_left_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then macOS refuses to watch a pipe at all."""

    def refuse(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(darwin.HangupWatch, "__init__", refuse)
    assert Hangup(1, select.poll(), writes=True).seen([])


# -- facts


class _Statfs(ctypes.Structure):
    """`struct statfs` with 64-bit inodes, as sys/mount.h has it."""

    _fields_ = (
        *(("bsize", ctypes.c_uint32), ("iosize", ctypes.c_int32), ("counts", ctypes.c_uint64 * 5)),
        *(("fsid", ctypes.c_int32 * 2), ("owner", ctypes.c_uint32), ("type", ctypes.c_uint32)),
        *(("flags", ctypes.c_uint32), ("subtype", ctypes.c_uint32), ("fstypename", ctypes.c_char * 16)),
        *(("mntonname", ctypes.c_char * 1024), ("mntfromname", ctypes.c_char * 1024)),
        *(("flags_ext", ctypes.c_uint32), ("reserved", ctypes.c_uint32 * 7)),
    )


@pytest.mark.parametrize(
    ("name", "flags", "found"),
    [
        (b"apfs", 0x4801000, ("apfs", True)),
        (b"smbfs", 0x8, ("smbfs", False)),
        (b"virtio-fs", 0x1000, ("virtio-fs", True)),
        (b"", 0x1000, ("", None)),
        (b"\xff\x00", 0x1000, ("", None)),
        (b"a b", 0x1000, ("", None)),
    ],
)
def test_a_filesystem_by_its_struct(name: bytes, flags: int, found: tuple[str, bool | None]) -> None:
    assert read_statfs(bytes(_Statfs(flags=flags, fstypename=name))) == found
    assert ctypes.sizeof(_Statfs) == darwin.STATFS_BYTES


@ON_A_MAC
def test_this_mac(tmp_path: Path) -> None:
    assert darwin.filesystem(str(tmp_path)) == ("apfs", True)
    assert darwin.sysctl("kern.bootsessionuuid") == kernel.run("sysctl", "-n", "kern.bootsessionuuid") != ""
    darwin.sync_volume(str(tmp_path))
    (tmp_path / "Palace").mkdir()
    assert true_path(str(tmp_path / "pALACE" / "x")) == str(tmp_path.resolve() / "Palace" / "x")


def test_what_the_system_does_not_tell() -> None:
    assert darwin.sysctl("no.such.name") == ""
    assert darwin.filesystem("/no/such/folder") == ("", None)


@pytest.fixture
def spelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which names have many spellings, as APFS has them."""
    home = tmp_path.resolve() / "Zoë"
    (home / ".mempalace" / "palace").mkdir(parents=True)
    real_open, names = os.open, {}

    def find(path: str) -> str:
        there = str(tmp_path.resolve())
        for part in path[len(there) :].strip("/").split("/"):
            known = {_folded(name): name for name in os.listdir(there)}
            there = os.path.join(there, known.get(_folded(part), part))
        return there

    def opened(path: str, flags: int, *more: Any, **most: Any) -> int:
        path = find(path) if isinstance(path, str) and path.startswith(str(tmp_path)) else path
        fd = real_open(path, flags & ~0x8000, *more, **most)
        names[fd] = path
        return fd

    def control(fd: int, command: int, arg: Any = 0) -> Any:
        assert command == darwin.F_GETPATH
        return os.fsencode(names[fd]).ljust(len(arg), b"\0")

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(fcntl, "fcntl", control)
    return home


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", name).casefold()


@pytest.mark.parametrize("rest", ["", "/.mempalace/palace", "/.mempalace/palace/not/There"])
def test_every_spelling_has_one_true_path(spelled: Path, rest: str) -> None:
    other = unicodedata.normalize("NFD", str(spelled)).replace("Zo", "zO") + rest.replace("palace", "PALACE")
    assert true_path(other) == str(spelled) + rest


def test_a_path_of_which_nothing_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(1, "no")

    monkeypatch.setattr(os, "open", refuse)
    assert true_path("/a/B") == "/a/B"


# -- asked once


def test_this_process_and_this_boot_are_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(*argv: str) -> str:
        asked.append(argv[0])
        return {"ps": "S    Sun Nov 22 10:00:00 2026", "sysctl": "B00T"}[argv[0]]

    monkeypatch.setattr(kernel, "run", run)
    monkeypatch.setattr(darwin, "sysctl", lambda name: "")
    for _ in range(3):
        assert kernel.boot_id() == "B00T"
        assert kernel.process_status(os.getpid()) == ("S", "Sun Nov 22 10:00:00 2026")
    assert sorted(asked) == ["ps", "sysctl"]
    kernel.process_status(1)
    kernel.process_status(1)
    assert asked.count("ps") == 3, "another process may end, and its pid be another's"


def test_the_boot_costs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "run", lambda *argv: pytest.fail(f"ran {argv}"))
    monkeypatch.setattr(darwin, "sysctl", lambda name: f"<{name}>")
    assert kernel.boot_id() == "<kern.bootsessionuuid>"


def test_a_start_token_is_the_same_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is `ps` that is asked, on Linux, too: a time of day, in UTC whatever the zone of whoever asks."""
    tokens = set()
    for zone in ("Pacific/Auckland", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setattr(kernel, "_ANSWERS", {})
        found = kernel.process_status(os.getpid())
        assert found is not None
        tokens.add(found[1])
    assert [len(token.split()) for token in tokens] == [5]
