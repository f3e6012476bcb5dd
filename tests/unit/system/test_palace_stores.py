"""An engine opens a palace only if its stores are regular files of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.system.palace_stores import check_stores
from tests.planted import plant

INDEX = "11111111-2222-3333-4444-555555555555"
STORES = [
    *("palace/chroma.sqlite3", "palace/chroma.sqlite3-wal", "palace/chroma.sqlite3-shm", "knowledge_graph.sqlite3"),
    *("palace/logstream.sqlite3", "palace/logstream.sqlite3-wal", "palace/sqlite_exact.sqlite3", "palace/milvus.db"),
    *("knowledge_graph.sqlite3-journal", f"palace/{INDEX}/data_level0.bin", f"palace/{INDEX}/index_metadata.pickle"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a palace that has all of its stores."""
    root = tmp_path / "root"
    (root / "palace" / INDEX).mkdir(parents=True)
    for store in STORES:
        (root / store).write_bytes(b"x")
    return root


def check(root: Path) -> list[str]:
    return check_stores(str(root / "palace"), str(root / "knowledge_graph.sqlite3"))


def test_a_good_palace_an_empty_one_and_none(root: Path, tmp_path: Path) -> None:
    assert check(root) == []
    (tmp_path / "palace").mkdir()
    check(tmp_path)
    check(tmp_path / "none")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder", "second name"])
def test_a_store_that_is_something_else(root: Path, tmp_path: Path, store: str, kind: str) -> None:
    if (store, kind) == ("palace/milvus.db", "folder"):
        pytest.skip("Milvus Lite 3 makes one")
    path, own = root / store, tmp_path / "own"
    own.write_bytes(b"precious")
    path.unlink()
    plant(path, kind, own)
    with pytest.raises(StateRootError, match="the palace is not opened") as refused:
        check(root)
    assert str(path) in refused.value.message
    assert "remove it" in refused.value.hint


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo"])
def test_what_lies_in_the_folder_of_milvus(root: Path, tmp_path: Path, kind: str) -> None:
    path = root / "palace/milvus.db"
    path.unlink()
    (path / "collections/drawers").mkdir(parents=True)
    (path / "collections/drawers/schema.json").write_bytes(b"x")
    assert check(root) == []
    own = tmp_path / "own"
    own.write_bytes(b"precious")
    plant(path / "collections/drawers/wal", kind, own)
    with pytest.raises(StateRootError, match="can't be trusted"):
        check(root)


def test_a_snapshot_of_hard_links_stops_nobody(root: Path, tmp_path: Path) -> None:
    for store in STORES:
        os.link(root / store, tmp_path / store.replace("/", "-"))
    assert sorted(check(root)) == sorted(str(root / store) for store in STORES)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_store_of_another_user(root: Path) -> None:
    os.chown(root / STORES[0], 54321, -1)
    with pytest.raises(StateRootError, match="another user"):
        check(root)


@pytest.mark.parametrize("target", ["folder", "nowhere"])
def test_an_index_folder_that_is_a_link(root: Path, tmp_path: Path, target: str) -> None:
    (root / "palace" / INDEX).rename(tmp_path / "folder")
    (root / "palace" / INDEX).symlink_to(tmp_path / target)
    with pytest.raises(StateRootError, match="neither a folder nor a file"):
        check(root)


def test_a_palace_that_became_a_link(root: Path, tmp_path: Path) -> None:
    (root / "palace").rename(tmp_path / "elsewhere")
    (root / "palace").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateRootError, match="the palace is not opened"):
        check(root)
