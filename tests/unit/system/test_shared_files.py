"""Files in folders that others can write to: no link is followed, only a regular file counts, reads are bounded."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.system.shared_files import SharedFolder, Untrusted, replace_file

STRANGER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SharedFolder]:
    (tmp_path / "root").mkdir()
    with SharedFolder.open(str(tmp_path / "root")) as folder:
        yield folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of ours beyond the folder, which nothing may read or change."""
    path = tmp_path / "id_ed25519"
    path.write_bytes(b"secret")
    return path


def place(folder: SharedFolder, name: str, kind: str, secret: Path) -> None:
    """Put something of that kind under that name, as an attacker would."""
    path = os.path.join(folder.path, name)
    if kind == "link":
        os.symlink(secret, path)
    elif kind == "dangling link":
        os.symlink(secret.parent / "made-by-us", path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)


KINDS = ["link", "dangling link", "folder", "fifo", "socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_regular_file_is_opened(folder: SharedFolder, secret: Path, kind: str) -> None:
    place(folder, "name", kind, secret)
    with pytest.raises(Untrusted, match="not a regular file"):
        folder.read("name", 100)
    for create in (False, True):
        with pytest.raises(Untrusted, match="not a regular file"):
            folder.open_in_place("name", create=create)
    with pytest.raises(FileExistsError):
        folder.create("name", b"x")
    assert secret.read_bytes() == b"secret"
    assert not (secret.parent / "made-by-us").exists()


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "socket"])
def test_whatever_has_the_name_is_replaced_and_not_written_to(folder: SharedFolder, secret: Path, kind: str) -> None:
    place(folder, "name", kind, secret)
    folder.replace("name", b"fresh")
    assert folder.read("name", 100) == b"fresh"
    assert folder.names() == ["name"]
    assert secret.read_bytes() == b"secret"
    assert not (secret.parent / "made-by-us").exists()


def test_a_folder_of_that_name_is_moved_aside_with_all_that_is_in_it(folder: SharedFolder, secret: Path) -> None:
    place(folder, "name", "folder", secret)
    os.link(secret, os.path.join(folder.path, "name", "kept"))
    folder.replace("name", b"fresh")
    assert folder.read("name", 100) == b"fresh"
    (moved,) = (name for name in folder.names() if name != "name")
    assert moved.startswith("name.moved-")
    with folder.folder(moved) as inner:
        assert inner.read("kept", 100) == b"secret"


def test_a_link_is_not_a_folder(folder: SharedFolder, secret: Path) -> None:
    os.symlink(secret.parent, os.path.join(folder.path, "sub"))
    for make in (False, True):
        with pytest.raises(OSError):  # noqa: PT011 - ELOOP or ENOTDIR, by kernel
            folder.folder("sub", make=make)


def test_folders_below_are_made_on_demand(folder: SharedFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.folder("sub")
    with folder.folder("sub", make=True) as sub:
        sub.create("a", b"1")
        assert sub.read("a", 10) == b"1"
    assert stat.S_IMODE(os.stat(os.path.join(folder.path, "sub")).st_mode) == 0o700


def test_what_counts_is_the_folder_that_was_opened(folder: SharedFolder, secret: Path) -> None:
    folder.create("a", b"ours")
    os.rename(folder.path, f"{folder.path}.old")
    os.symlink(secret.parent, folder.path)
    assert folder.read("a", 10) == b"ours"
    with pytest.raises(OSError):  # noqa: PT011 - ELOOP or ENOTDIR, by kernel
        SharedFolder.open(folder.path)


@pytest.mark.parametrize("name", ["", ".", "..", "../id_ed25519", "a/b", "/etc/passwd", "a\0b"])
def test_names_lead_nowhere_else(folder: SharedFolder, name: str) -> None:
    for touch in (
        lambda: folder.read(name, 1),
        lambda: folder.create(name),
        lambda: folder.replace(name, b""),
        lambda: folder.remove(name),
        lambda: folder.folder(name, make=True),
        lambda: folder.rename("x", name),
    ):
        with pytest.raises(Untrusted):
            touch()


def test_reads_are_bounded(folder: SharedFolder) -> None:
    folder.create("big", b"x" * 5000)
    assert folder.read("big", 10) == b"x" * 11
    assert folder.read("absent", 10) is None


def test_a_file_that_others_can_write_by_a_second_name_is_not_written_in_place(
    folder: SharedFolder, secret: Path
) -> None:
    os.link(secret, os.path.join(folder.path, "name"))
    os.close(folder.open_in_place("name"))  # as a snapshot of hard links has it
    secret.chmod(0o622)
    with pytest.raises(Untrusted, match="another name"):
        folder.open_in_place("name")
    folder.replace("name", b"fresh")
    assert secret.read_bytes() == b"secret"


def test_in_place(folder: SharedFolder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.open_in_place("a")
    fd = folder.open_in_place("a", create=True)
    try:
        os.pwrite(fd, b"x", 0)
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    assert folder.read("a", 10) == b"x"
    folder.rename("a", "b")
    assert (folder.remove("b"), folder.remove("b")) == (True, False)


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_no_temp_file(
    folder: SharedFolder, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder.replace("a", b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        folder.replace("a", b"new")
    monkeypatch.undo()
    assert folder.read("a", 10) == b"old"
    assert folder.names() == ["a"]


def test_half_a_file_is_not_left_behind(folder: SharedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.create("a", b"x")
    assert folder.names() == []


def test_a_reader_sees_one_whole_version_or_the_other(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    versions = {b"a" * 50_000, b"b" * 70_000}
    replace_file(path, b"a" * 50_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                replace_file(path, version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with SharedFolder.open(str(tmp_path)) as folder:
            seen = {folder.read("r.json", 100_000) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= versions
    assert os.stat(path).st_mode & 0o777 == 0o600


@needs_root
def test_a_strangers_file_is_not_believed(folder: SharedFolder) -> None:
    folder.create("a", b"x")
    os.chown("a", STRANGER, -1, dir_fd=folder.fd)
    with pytest.raises(Untrusted, match=f"another user .uid {STRANGER}"):
        folder.read("a", 10)


@needs_root
def test_root_believes_the_owner_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.chown(tmp_path, STRANGER, -1)
    os.chown(tmp_path / "a", STRANGER, -1)
    with SharedFolder.open(str(tmp_path)) as folder:
        assert folder.read("a", 10) == b"x"
