"""The index guard on hand-made indexes: torn in every way, and killed at every step of a repair."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mempalace_broker.engine.index_copies import FILES, copy_bytes
from mempalace_broker.engine.index_guard import IndexGuard
from mempalace_broker.engine.index_metadata import META, Torn, UnknownFormat, read_ids
from mempalace_broker.system.shared_files import SharedFolder
from tests.planted import plant

NAME = "11111111-2222-3333-4444-555555555555"
COLLECTION = "99999999-2222-3333-4444-555555555555"


class Palace:
    """A palace directory with one index of `stored` entries and a database that knows `stored` and `queued`."""

    def __init__(self, root: Path, stored: int = 3, queued: int = 2) -> None:
        self.path = root / "palace"
        self.index = self.path / NAME
        self.store = root / "broker-index"
        self.said: list[str] = []
        self.index.mkdir(parents=True)
        self.write_index(stored)
        with closing(sqlite3.connect(self.path / "chroma.sqlite3")) as db, db:
            db.executescript(
                "CREATE TABLE segments (id TEXT, type TEXT, scope TEXT, collection TEXT);"
                "CREATE TABLE max_seq_id (segment_id TEXT, seq_id INTEGER);"
                "CREATE TABLE embeddings (id INTEGER, segment_id TEXT, embedding_id TEXT, seq_id INTEGER);"
                "CREATE TABLE embeddings_queue (seq_id INTEGER, operation INTEGER, topic TEXT, id TEXT);"
            )
            db.execute("INSERT INTO segments VALUES (?, 'hnsw', 'VECTOR', ?)", (NAME, COLLECTION))
            db.execute("INSERT INTO segments VALUES ('meta', 'sqlite', 'METADATA', ?)", (COLLECTION,))
            db.execute("INSERT INTO max_seq_id VALUES (?, ?)", (NAME, stored))
            for n in range(stored + queued):
                db.execute("INSERT INTO embeddings VALUES (?, 'meta', ?, ?)", (n, f"d{n}", n + 1))
            for n in range(stored, stored + queued):
                topic = f"persistent://default/default/{COLLECTION}"
                db.execute("INSERT INTO embeddings_queue VALUES (?, 0, ?, ?)", (n + 1, topic, f"d{n}"))

    def write_index(self, count: int) -> None:
        for file in FILES[1:4]:
            (self.index / file).write_bytes(f"{file} of {count}".encode() * 50)
        (self.index / "header.bin").write_bytes(struct.pack("<iQQQ", 1, 0, 100, count) + bytes(40))
        labels = {f"d{n}": n + 1 for n in range(count)}
        (self.index / META).write_bytes(pickle.dumps({"total_elements_added": count, "id_to_label": labels}, 3))

    def guard(self) -> IndexGuard:
        return IndexGuard(str(self.path), str(self.store), self.said.append)

    def repair(self) -> list[dict[str, str]]:
        """As at a start; waits for the copies."""
        guard = self.guard()
        warnings = guard.repair()
        guard.settle()
        return warnings

    def content(self) -> dict[str, bytes]:
        return {file: (self.index / file).read_bytes() for file in FILES}


def ids_in(folder: Path) -> set[str]:
    with SharedFolder.open(str(folder)) as index:
        return read_ids(index)


def cut_metadata(palace: Palace) -> None:
    (palace.index / META).write_bytes(b"")


def half_metadata(palace: Palace) -> None:
    data = (palace.index / META).read_bytes()
    (palace.index / META).write_bytes(data[: len(data) // 2])


def header_ahead(palace: Palace) -> None:
    (palace.index / "header.bin").write_bytes(struct.pack("<iQQQ", 1, 0, 100, 5) + bytes(40))


def data_without_metadata(palace: Palace) -> None:
    """A store of updates, cut short: no count has changed."""
    (palace.index / "link_lists.bin").write_bytes(b"newer links" * 50)


TEARS = [cut_metadata, half_metadata, header_ahead, data_without_metadata]
tears = pytest.mark.parametrize("tear", TEARS)


@tears
def test_a_torn_index_is_put_back(tmp_path: Path, tear: Callable[[Palace], None]) -> None:
    palace = Palace(tmp_path)
    assert palace.repair() == []
    whole = palace.content()
    tear(palace)
    assert palace.repair() == []
    assert palace.content() == whole
    assert any("put back" in line for line in palace.said)
    assert palace.repair() == []
    assert sum("put back" in line for line in palace.said) == 1, "sound now"


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


@tears
@pytest.mark.parametrize("step", range(8))
def test_a_repair_that_was_killed_is_completed_the_next_time(
    tmp_path: Path, tear: Callable[[Palace], None], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    whole = palace.content()
    tear(palace)
    left = step

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        nonlocal left
        if threading.current_thread() is threading.main_thread():  # a copy is another matter
            if not left:
                raise Killed
            left -= 1
        stock(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    stock = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        try:
            palace.repair()
        except Killed:
            pass
        else:
            assert step >= len(FILES)
    assert palace.repair() == []
    assert palace.content() == whole


def test_a_new_store_is_copied_and_an_old_copy_dropped(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    guard = palace.guard()
    guard.repair()
    guard.settle()
    (first,) = palace.store.iterdir()
    guard.after_write()
    guard.settle()
    assert list(palace.store.iterdir()) == [first]
    palace.write_index(5)
    os.utime(palace.index / META, ns=(1, first.stat().st_mtime_ns + 10**9))
    guard.after_write()
    guard.settle()
    (second,) = palace.store.iterdir()
    assert second != first
    assert ids_in(second) == {f"d{n}" for n in range(5)}


def test_an_index_that_is_as_it_was_copied_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    monkeypatch.setattr("mempalace_broker.engine.index_guard.read_ids", None)
    copied = {path: path.stat().st_mtime_ns for path in palace.store.rglob("*")}
    guard = palace.guard()
    assert guard.repair() == []
    guard.after_write()
    guard.settle()
    assert {path: path.stat().st_mtime_ns for path in palace.store.rglob("*")} == copied


def test_what_is_stored_while_it_is_copied_is_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palace = Palace(tmp_path)
    guard = palace.guard()
    stock, stores = copy_bytes, [5, 6]

    def copy_while_stored(source: int, target: int) -> int:
        done = stock(source, target)
        if stores:
            palace.write_index(stores.pop(0))
            os.utime(palace.index / META, ns=(1, (10 - len(stores)) * 10**17))
            guard.after_write()
        return done

    monkeypatch.setattr("mempalace_broker.engine.index_copies.copy_bytes", copy_while_stored)
    guard.repair()
    guard.settle()
    (copy,) = palace.store.iterdir()
    assert ids_in(copy) == {f"d{n}" for n in range(6)}
    assert (copy / "complete.json").exists()


def test_many_writes_wait_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma stores the index every thousand writes, and must not change what is being copied."""
    palace = Palace(tmp_path)
    guard, go = palace.guard(), threading.Event()
    stock = copy_bytes

    def slowly(source: int, target: int) -> int:
        assert go.wait(60)
        return stock(source, target)

    monkeypatch.setattr("mempalace_broker.engine.index_copies.copy_bytes", slowly)
    guard.repair()
    guard.after_write(100)
    assert not list(palace.store.rglob("complete.json"))
    threading.Timer(0.05, go.set).start()
    guard.after_write(350)
    assert list(palace.store.rglob("complete.json"))


def test_a_copy_that_does_not_fit_the_database_is_left(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    with closing(sqlite3.connect(palace.path / "chroma.sqlite3")) as db, db:
        db.execute("DELETE FROM embeddings_queue")
    cut_metadata(palace)
    (warning,) = palace.repair()
    assert "does not fit" in warning["what"]
    assert warning["hint"] == "mempalace repair"
    assert (palace.index / META).read_bytes() == b""


def test_without_a_copy_it_is_said(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    cut_metadata(palace)
    (warning,) = palace.repair()
    assert "there is no copy" in warning["what"]


def test_an_incomplete_copy_does_not_count(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    (copy,) = palace.store.iterdir()
    (copy / "complete.json").unlink()
    cut_metadata(palace)
    (warning,) = palace.repair()
    assert "there is no copy" in warning["what"]


def test_a_copy_that_fails_is_said_once_and_leaves_no_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    palace = Palace(tmp_path)
    guard = palace.guard()
    guard.repair()
    guard.settle()
    palace.write_index(4)
    os.utime(palace.index / META, ns=(1, 2 * 10**18))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mempalace_broker.engine.index_copies.copy_bytes", full)
    guard.after_write()
    guard.settle()
    guard.after_write()
    guard.settle()
    assert sum("could not be copied" in line for line in palace.said) == 1
    assert list(palace.store.iterdir()) == []


def test_a_thread_that_can_not_be_started_fails_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    palace = Palace(tmp_path)
    guard = palace.guard()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        guard.after_write()
        guard.settle()
    assert any("can't start new thread" in line for line in palace.said)
    assert list(palace.path.parent.rglob("complete.json")) == []
    palace.write_index(4)
    guard.after_write()
    guard.settle()
    (copy,) = palace.store.iterdir()
    assert ids_in(copy) == {f"d{n}" for n in range(4)}


def test_copies_of_indexes_that_are_gone_are_removed(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    shutil.rmtree(palace.index)
    assert palace.repair() == []
    assert list(palace.store.iterdir()) == []


def test_what_is_not_ours_to_judge(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    (palace.index / META).write_bytes(pickle.dumps(Path("/")))
    with pytest.raises(UnknownFormat):
        ids_in(palace.index)
    assert palace.repair() == []
    assert any("can't be checked" in line for line in palace.said)
    (palace.index / "header.bin").write_bytes(b"short")
    palace.write_index(2)
    (palace.index / "header.bin").write_bytes(b"short")
    with pytest.raises(Torn, match="too short"):
        ids_in(palace.index)


# -- whatever a guest puts under these names -----------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of ours beyond the palace, which nothing may read or change."""
    path = tmp_path / "id_ed25519"
    path.write_bytes(b"secret")
    return path


def stored(folder: Path) -> bytes:
    """All bytes in all files below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_regular_files_are_copied(tmp_path: Path, secret: Path, file: str, kind: str) -> None:
    palace = Palace(tmp_path)
    path = palace.index / file
    path.unlink()
    plant(path, kind, secret)
    guard = palace.guard()
    guard.repair()
    guard.settle()
    guard.after_write()
    guard.settle()
    assert b"secret" not in stored(palace.store)
    assert secret.read_bytes() == b"secret"


def test_an_index_folder_that_is_a_link_is_not_an_index(tmp_path: Path, secret: Path) -> None:
    palace = Palace(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    palace.index.rename(elsewhere)
    palace.index.symlink_to(elsewhere)
    assert palace.repair() == []
    assert list(palace.store.iterdir()) == []


@pytest.mark.parametrize("file", [f"{name}.part" for name in FILES])
def test_a_link_under_the_name_of_a_part_is_not_written_through(tmp_path: Path, secret: Path, file: str) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    whole = palace.content()
    cut_metadata(palace)
    (palace.index / file).symlink_to(secret)
    assert palace.repair() == []
    assert palace.content() == whole
    assert secret.read_bytes() == b"secret"


def test_metadata_with_a_second_name_is_restored_and_the_other_name_kept(tmp_path: Path, secret: Path) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    whole = palace.content()
    (palace.index / META).unlink()
    os.link(secret, palace.index / META)
    assert palace.repair() == []
    assert palace.content() == whole
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("what", ["link to a folder", "link", "file"])
def test_the_folder_of_copies_is_never_elsewhere(tmp_path: Path, secret: Path, what: str) -> None:
    palace = Palace(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if what == "file":
        palace.store.write_bytes(b"x")
    else:
        palace.store.symlink_to(elsewhere if what == "link to a folder" else secret)
    assert palace.repair() == []
    assert list(elsewhere.iterdir()) == []
    assert not palace.store.is_symlink()
    (copy,) = palace.store.iterdir()
    assert (copy / META).read_bytes() == (palace.index / META).read_bytes()


def test_a_copy_made_of_links_is_not_put_back(tmp_path: Path, secret: Path) -> None:
    palace = Palace(tmp_path)
    palace.repair()
    (copy,) = palace.store.iterdir()
    (copy / "data_level0.bin").unlink()
    (copy / "data_level0.bin").symlink_to(secret)
    cut_metadata(palace)
    (warning,) = palace.repair()
    assert "can't be put back" in warning["what"]
    assert b"secret" not in stored(palace.path)


def test_a_file_that_claims_more_bytes_than_the_disk_has_is_not_copied(tmp_path: Path) -> None:
    palace = Palace(tmp_path)
    os.truncate(palace.index / "data_level0.bin", 1 << 43)
    palace.repair()
    assert any("No space left" in line for line in palace.said)
    assert list(palace.store.iterdir()) == []


def test_an_index_is_read_again_only_after_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    palace, read = Palace(tmp_path), []

    def counted(index: SharedFolder) -> set[str]:
        read.append(index.path)
        return read_ids(index)

    monkeypatch.setattr("mempalace_broker.engine.index_guard.read_ids", counted)
    guard = palace.guard()
    for _ in range(3):
        assert guard.repair() == []
    assert len(read) == 1
    whole = palace.content()
    (palace.index / "header.bin").unlink()
    assert guard.repair() == []
    assert palace.content() == whole
