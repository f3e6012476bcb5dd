"""Kept counts and pages stand in for mempalace's own functions only where they answer the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups import flat_reads
from mempalace_broker.engine.tuneups.chroma_writes import Write
from mempalace_broker.engine.tuneups.flat_reads import KEPT_COUNTS, KEPT_PAGES
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.chroma_database import DRAWERS, ChromaDatabase
from tests.fakes.mempalace import FakeMempalace

Page = dict[str, Any]


class Palace:
    """As much of mempalace 3.11 as lists and counts drawers, and counts how often it reads all of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = str(folder)
        self.database = ChromaDatabase(folder)
        self.read = 0
        self.wrong = False
        chroma, server = SimpleNamespace(), SimpleNamespace(_config=SimpleNamespace(collection_name="drawers"))

        def open_palace_reader(db_path: str) -> Any:
            return self.database.open_reader(db_path)

        def _sqlite_ready_metadata_segment(conn: Any, collection_name: str) -> Any:
            return self.database.ready(conn, collection_name)

        def _sqlite_wing_room_counts(palace_path: str, collection_name: str) -> Any:
            wings: dict[str, dict[str, int]] = {}
            rows = sorted((meta["wing"], meta["room"]) for _, meta in self._rows())
            for wing, room in rows:
                rooms = wings.setdefault(wing, {})
                rooms[room] = rooms.get(room, 0) + 1
            return len(rows) + self.wrong, wings

        def sqlite_room_wing_hall_counts(palace_path: str, collection_name: str) -> Any:
            keys = sorted((meta["room"], meta["wing"], "") for _, meta in self._rows())
            dates = {key: max(self._dates(key), default="") for key in keys}
            return [(*key, keys.count(key), dates[key]) for key in dict.fromkeys(keys)]

        def sqlite_list_id_metadata(
            palace_path: str, collection_name: str, where: Any = None, *, _connection: Any = None
        ) -> Any:
            rows = [row for row in self._rows() if all(row[1].get(key) == where[key] for key in where or {})]
            return [name for name, _ in rows], [meta for _, meta in rows]

        def _equality_filters(where: Any) -> Any:
            return where or {}

        def _collapse_drawer_rows(ids: Any, documents: Any, metadatas: Any) -> Any:
            listed = {_logical_parent_id(meta) or name for name, meta in zip(ids, metadatas, strict=True)}
            return [{"drawer_id": name} for name in sorted(listed)]

        def _logical_parent_id(meta: Any) -> Any:
            return meta.get("parent_drawer_id")

        server._PARENT_ID_KEYS = ("parent_drawer_id",)
        vars(chroma).update(locals())
        vars(server).update(locals())
        self.chroma, self.server = chroma, server
        self.mempalace = FakeMempalace(folder, server, backends__chroma=chroma)
        self.watchers: list[tuple[Callable[[Write], None], Callable[[Write], None]]] = []
        monkeypatch.setattr(flat_reads, "watch_writes", lambda after, before: self.watchers.append((after, before)))

    def _rows(self) -> list[tuple[str, dict[str, Any]]]:
        self.read += 1
        return self.database.rows()

    def _dates(self, key: tuple[str, str, str]) -> list[str]:
        rows = [metadata for _, metadata in self.database.rows() if (metadata["room"], metadata["wing"]) == key[:2]]
        return [metadata["date"] for metadata in rows if "date" in metadata]

    def write(self, name: str, **metadata: Any) -> None:
        write = Write(DRAWERS, [name])
        for _, before in self.watchers:
            before(write)
        self.database.apply(write, metadata or None)
        for after, _ in self.watchers:
            after(write)

    def list_drawers(self, offset: int = 0, limit: int = 3, *, all_of: bool = False, **where: Any) -> Page:
        """As the tool does it."""
        conn = self.database.open_reader(str(self.database.path))
        try:
            conn.execute("BEGIN")
            listed = self.chroma.sqlite_list_id_metadata(self.folder, "drawers", where=where, _connection=conn)
            drawers = self.server._collapse_drawer_rows(listed[0], [], listed[1])
            if all_of:
                drawers = [one for one in drawers if one["drawer_id"] != "d1"]
            return {"drawers": drawers[offset : offset + limit], "total": len(drawers)}
        finally:
            conn.close()

    def counts(self) -> tuple[Any, Any]:
        by_wing = self.chroma._sqlite_wing_room_counts(self.folder, "drawers")
        return by_wing, self.chroma.sqlite_room_wing_hall_counts(self.folder, "drawers")


@pytest.fixture
def palace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Palace:
    palace = Palace(tmp_path, monkeypatch)
    for n in range(10):
        palace.write(f"d{n}", wing=f"w{n % 2}", room="r")
    return palace


def tuned(palace: Palace) -> Palace:
    KEPT_COUNTS.apply(palace.mempalace)  # type: ignore[arg-type]
    KEPT_PAGES.apply(palace.mempalace)  # type: ignore[arg-type]
    return palace


def test_counts_are_read_once_and_then_kept(palace: Palace) -> None:
    for name, date in (("d3", "2026-01-02"), ("d5", "2026-03-04"), ("d7", "2026-02-03")):
        palace.write(name, wing="w1", room="r", date=date)
    before = palace.counts()
    assert tuned(palace).counts() == before
    read = palace.read
    palace.write("d1", wing="a first one", room="r")
    palace.write("d2")
    found = palace.counts()
    assert palace.read == read
    assert found[0] == (9, {"a first one": {"r": 1}, "w0": {"r": 4}, "w1": {"r": 4}})
    assert list(found[0][1]) == ["a first one", "w0", "w1"]
    assert found[1] == [("r", "a first one", "", 1, ""), ("r", "w0", "", 4, ""), ("r", "w1", "", 4, "2026-03-04")]


def test_pages_are_sorted_once_and_then_kept(palace: Palace) -> None:
    wanted = palace.list_drawers(2, wing="w1")
    tuned(palace)
    assert [palace.list_drawers(2, wing="w1") for _ in range(3)] == [wanted] * 3
    read = palace.read
    palace.write("d1")
    palace.write("chunk 1", wing="w1", room="r", parent_drawer_id="d0 joined")
    palace.write("chunk 2", wing="w1", room="r", parent_drawer_id="d0 joined")
    found = palace.list_drawers(wing="w1")
    assert palace.read == read
    assert found == {"drawers": [{"drawer_id": name} for name in ("d0 joined", "d3", "d5")], "total": 5}
    assert palace.list_drawers(4, 9, wing="w1")["drawers"] == [{"drawer_id": "d9"}]


def test_whoever_looks_at_all_drawers_gets_them_all(palace: Palace) -> None:
    wanted = palace.list_drawers(all_of=True, wing="w1")
    tuned(palace)
    assert [palace.list_drawers(all_of=True, wing="w1") for _ in range(3)] == [wanted] * 3


def test_another_answer_than_mempalaces_is_never_given(palace: Palace, capfd: pytest.CaptureFixture[str]) -> None:
    palace.wrong = True
    tuned(palace)
    assert [palace.counts()[0][0] for _ in range(3)] == [11] * 3
    assert "_sqlite_wing_room_counts answers differently" in capfd.readouterr().err


def test_an_empty_palace_proves_nothing(palace: Palace) -> None:
    for n in range(10):
        palace.write(f"d{n}")
    tuned(palace)
    assert palace.counts() == ((0, {}), [])
    palace.write("d1", wing="w", room="r")
    palace.wrong = True
    assert [palace.counts()[0][0] for _ in range(2)] == [2] * 2


def test_a_page_that_differs_is_never_given(palace: Palace, capfd: pytest.CaptureFixture[str]) -> None:
    def _logical_parent_id(meta: Any) -> Any:
        return f"of wing {meta['wing']}"

    palace.server._logical_parent_id = _logical_parent_id  # what the tool itself does not use
    wanted = palace.list_drawers()
    tuned(palace)
    assert [palace.list_drawers() for _ in range(3)] == [wanted] * 3
    assert "list_drawers answers differently" in capfd.readouterr().err


def test_other_palaces_and_collections_are_mempalaces(palace: Palace) -> None:
    tuned(palace).counts()
    read = palace.read
    palace.chroma._sqlite_wing_room_counts("/elsewhere", "drawers")
    palace.chroma._sqlite_wing_room_counts(palace.folder, "closets")
    assert palace.read == read + 2


def test_a_closed_palace_leaves_nothing_in_memory(palace: Palace) -> None:
    tuned(palace).counts()
    read = palace.read
    for step in palace.mempalace.before_close:
        step()
    palace.database.apply(Write(DRAWERS, ["d1"]), None)
    assert palace.counts()[0][0] == 9
    assert palace.read == read  # counted anew, by SQL of our own


def test_both_share_one_watch(palace: Palace) -> None:
    tuned(palace)
    assert len(palace.watchers) == 1


@pytest.mark.parametrize("lacking", ["open_palace_reader", "_sqlite_ready_metadata_segment"])
def test_an_older_mempalace_runs_as_it_is(palace: Palace, lacking: str) -> None:
    delattr(palace.chroma, lacking)
    counts = palace.chroma._sqlite_wing_room_counts
    with pytest.raises(DoesNotFit):
        KEPT_COUNTS.apply(palace.mempalace)  # type: ignore[arg-type]
    with pytest.raises(DoesNotFit):
        KEPT_PAGES.apply(palace.mempalace)  # type: ignore[arg-type]
    assert palace.chroma._sqlite_wing_room_counts is counts
    assert palace.watchers == []
