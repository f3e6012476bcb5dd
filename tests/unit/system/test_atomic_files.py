"""Files that others read while they are replaced, and that only their owner removes."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from mempalace_broker.system.atomic_files import read_bytes, remove_if, remove_temp_files, write_atomic

LIMIT = 1000


def test_write_and_read(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert read_bytes(path, LIMIT) == b"two"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_reader_sees_one_whole_version_or_the_other(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    versions = {b"a" * 50_000, b"b" * 70_000}
    write_atomic(path, b"a" * 50_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                write_atomic(path, version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {read_bytes(path, 100_000) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= versions


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = str(tmp_path / "r.json")
    write_atomic(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert read_bytes(path, LIMIT) == b"old"
    assert os.listdir(tmp_path) == ["r.json"]


def test_reading_what_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    assert read_bytes(str(tmp_path / "absent"), LIMIT) is None
    (tmp_path / "file").touch()
    assert read_bytes(str(tmp_path / "file" / "below"), LIMIT) is None
    assert read_bytes(str(tmp_path / "file"), LIMIT) == b""
    with pytest.raises(OSError, match="directory"):
        read_bytes(str(tmp_path), LIMIT)
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="symbolic links"):
        read_bytes(str(tmp_path / "link"), LIMIT)


def test_a_fifo_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_bytes(str(tmp_path / "fifo"), LIMIT) == b""


def test_one_byte_over_the_limit_shows_that_it_is_longer(tmp_path: Path) -> None:
    path = str(tmp_path / "big")
    write_atomic(path, b"x" * 5000)
    assert read_bytes(path, LIMIT) == b"x" * (LIMIT + 1)


def test_remove_only_what_the_predicate_owns(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    assert not remove_if(path, lambda data: True), "nothing there"
    write_atomic(path, b"theirs")
    assert not remove_if(path, lambda data: data == b"mine")
    assert read_bytes(path, LIMIT) == b"theirs"
    write_atomic(path, b"mine")
    assert remove_if(path, lambda data: data == b"mine")
    assert os.listdir(tmp_path) == []


def test_a_successors_record_written_between_look_and_removal_survives(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    write_atomic(path, b"mine")

    def predicate(data: bytes) -> bool:
        if data == b"mine":
            write_atomic(path, b"successor")
            return True
        return False

    assert not remove_if(path, predicate)
    assert read_bytes(path, LIMIT) == b"successor"
    assert os.listdir(tmp_path) == ["r.json"]


def test_putting_back_never_covers_a_newer_one(tmp_path: Path) -> None:
    """Replaced before the move aside, and once more after it: the last one stays."""
    path = str(tmp_path / "r.json")
    write_atomic(path, b"mine")

    def predicate(data: bytes) -> bool:
        if data == b"mine":
            write_atomic(path, b"second")
            return True
        write_atomic(path, b"third")
        return False

    assert not remove_if(path, predicate)
    assert read_bytes(path, LIMIT) == b"third"
    assert os.listdir(tmp_path) == ["r.json"]


def test_gone_between_look_and_removal(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b"mine")

    def predicate(data: bytes) -> bool:
        path.unlink()
        return True

    assert not remove_if(str(path), predicate)


def test_litter_of_killed_writers_goes_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "r.json")
    keep = {"r.json", ".r.json.swp", ".other.json.1-ab.tmp", "r.json.tmp"}
    for name in keep | {".r.json.77-0badcafe.tmp", ".r.json.78-0badcafe.old"}:
        (tmp_path / name).touch()
    assert remove_temp_files(path) == 2
    assert set(os.listdir(tmp_path)) == keep
