"""Counts and lists of drawers that are kept are those that reading all of them anew would give."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.engine.tuneups import drawer_rows
from mempalace_broker.engine.tuneups.chroma_writes import Write
from mempalace_broker.engine.tuneups.drawer_overview import DrawerOverview
from mempalace_broker.engine.tuneups.drawer_rows import Kind
from mempalace_broker.engine.tuneups.file_cache import stamps_of
from tests.fakes.chroma_database import CLOSETS, DRAWERS, ChromaDatabase

PARENTS = ("parent_drawer_id", "parent_id")
FILTERS: list[dict[str, Any]] = [{}, {"wing": "w1"}, {"room": "r0"}, {"room": "r1", "wing": "w0"}]


def logical(metadata: dict[str, Any]) -> Any:
    return next((metadata[key] for key in PARENTS if metadata.get(key)), None)


def metadata_of(rng: random.Random) -> dict[str, Any]:
    """Of a drawer, with all that old palaces may have in them."""
    found: dict[str, Any] = {"wing": rng.choice(["w0", "w1", "", "?", "é", 7, 1.5, True])}
    found["room"] = rng.choice(["r0", "r1", "", 3])
    found |= rng.choice([{}, {"hall": "h1"}, {"date": "2026-01-01"}, {"hall": "h2", "date": "2026-02-02"}])
    if rng.random() < 0.3:
        found[rng.choice(PARENTS)] = f"d{rng.randrange(6)}"
    if rng.random() < 0.1:
        del found["wing"]
    return found


class Room:
    """A palace, what is kept of it, and how often all of it was read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = ChromaDatabase(folder)
        self.overview = DrawerOverview(
            str(folder), "drawers", self.database.open_reader, self.database.ready, logical, PARENTS
        )
        self.read = 0
        stock = drawer_rows.kinds

        def kinds(conn: Any, segment: str, ids: Iterable[str] | None = None) -> Counter[Kind]:
            self.read += ids is None
            return stock(conn, segment, ids)

        monkeypatch.setattr(drawer_rows, "kinds", kinds)

    def write(self, ids: list[str], metadata: dict[str, Any] | None, collection: str = DRAWERS) -> None:
        """One of our own."""
        write = Write(collection, ids)
        self.overview.before_write(write)
        self.database.apply(write, metadata)
        self.overview.after_write(write)

    def foreign(self, ids: list[str], metadata: dict[str, Any] | None, *, numbered: bool = True) -> None:
        self.database.apply(Write(DRAWERS, ids), metadata, numbered=numbered)

    def check(self) -> None:
        """Compare the counts, the lists and each drawer listed with what the database has."""
        rows = self.database.rows()
        counted = self.overview.kinds()
        assert counted is not None
        total = sum(counted.values())
        assert total == len(rows)
        by_date = Counter(kind[3] for kind in counted.elements())
        dates = [metadata.get("date") for _, metadata in rows]
        assert by_date == Counter(dates)
        texts = [text_of(metadata.get("wing")) for _, metadata in rows]
        assert Counter(kind[0] for kind in counted.elements()) == Counter(texts)
        for filters in FILTERS:
            self._check_list(filters, rows)

    def _check_list(self, filters: dict[str, Any], rows: list[tuple[str, dict[str, Any]]]) -> None:
        fitting = [row for row in rows if all(row[1].get(key) == value for key, value in filters.items())]
        wanted = sorted({logical(metadata) or name for name, metadata in fitting})
        with self.overview._reading() as conn:
            found = self.overview.listed(conn, filters)
            if found is None:
                self.overview.learn(conn, filters, fitting)
                found = self.overview.listed(conn, filters)
            assert found == wanted
            listed = self.overview.rows_listed_as(conn, found, filters)
        assert plainly(listed) == plainly(fitting)


def plainly(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Comparable, and True is not 1."""
    return sorted(repr((name, sorted(metadata.items()))) for name, metadata in rows)


def text_of(value: Any) -> Any:
    """As SQL has it: a truth value counts as none."""
    return None if value is None or isinstance(value, bool) else str(value)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    room = Room(tmp_path, monkeypatch)
    rng = random.Random(1)
    for n in range(20):
        room.foreign([f"d{n}"], metadata_of(rng))
    room.check()
    assert room.read == 1
    return room


@pytest.mark.parametrize("seed", range(20))
def test_own_writes_are_followed_without_reading_all_again(room: Room, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        ids = [f"d{n}" for n in rng.sample(range(30), rng.randrange(1, 5))]
        room.write(ids, metadata_of(rng) if rng.random() < 0.7 else None, rng.choice([DRAWERS, DRAWERS, CLOSETS]))
        if rng.random() < 0.4:
            room.check()
    room.check()
    assert room.read == 1


def test_anybody_elses_write_is_seen_whenever_it_comes(room: Room) -> None:
    room.foreign(["new"], {"wing": "w1", "room": "r1"})
    room.check()
    write = Write(DRAWERS, ["d1"])
    room.overview.before_write(write)
    room.foreign(["d2"], None)  # in the middle of ours
    room.database.apply(write, {"wing": "w9", "room": "r9"})
    room.overview.after_write(write)
    room.check()
    room.write(["d3"], None)
    room.foreign(["d3"], {"wing": "w1", "room": "r0"})  # after ours, the same row
    room.check()
    assert room.read == 4


def test_a_write_that_the_files_do_not_show_is_seen_by_its_number(room: Room) -> None:
    path = room.database.path
    for question in (True, False):
        before = path.stat()
        room.foreign(["d1"], {"wing": f"w{question}", "room": "r1"})
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        if not question:
            room.write(["d1"], {"wing": "w0", "room": "r0"})
        room.check()
    assert room.read == 3


def test_a_change_without_a_number_is_seen_by_the_files(room: Room) -> None:
    room.foreign(["d1", "d2"], {"wing": "by SQL", "room": "r0"}, numbered=False)
    room.check()
    room.foreign(["d1"], None, numbered=False)
    room.write(["d5"], {"wing": "w1", "room": "r1"})
    room.check()
    assert room.read == 3


def test_a_write_that_fails_leaves_nothing_wrong(room: Room) -> None:
    write = Write(DRAWERS, ["d1", "d2"])
    room.overview.before_write(write)
    room.overview.after_write(write)
    room.check()


def test_a_delete_by_another_rule_is_read_anew(room: Room) -> None:
    write = Write(DRAWERS, None)
    room.overview.before_write(write)
    room.foreign(["d1"], None)
    room.overview.after_write(write)
    room.check()
    assert room.read == 2


def test_many_writes_without_a_question_are_not_followed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mempalace_broker.engine.tuneups.drawer_overview._MOST_PENDING", 10)
    for n in range(12):
        room.write([f"more{n}"], {"wing": "w1", "room": "r0"})
    room.check()
    assert room.read == 2


def test_a_database_that_is_behind_is_mempalaces_to_judge(room: Room) -> None:
    room.database.behind = True
    assert room.overview.kinds() is None
    room.database.behind = False
    room.check()
    assert room.read == 2


def test_an_id_that_is_not_text_is_not_listed(room: Room) -> None:
    room.write(["odd"], {"wing": "w1", "room": "r1", "parent_id": 5})
    with room.overview._reading() as conn:
        assert room.overview.listed(conn, {}) is None
        room.overview.learn(conn, {}, room.database.rows())
        assert room.overview.listed(conn, {}) is None


def test_a_database_that_cannot_be_read_fails_no_write(room: Room, capfd: pytest.CaptureFixture[str]) -> None:
    room.database.path.write_bytes(b"not a database, but of the length of one" * 100)
    room.overview._stamps = stamps_of(room.overview._files)
    room.overview.before_write(Write(DRAWERS, ["d1"]))
    assert "counted again" in capfd.readouterr().err


def test_a_mempalace_that_cannot_open_it_fails_no_write(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> Any:
        raise RuntimeError("of another kind")

    room.check()
    monkeypatch.setattr(room.overview, "_open_reader", refuse)
    room.overview.before_write(Write(DRAWERS, ["d1"]))
    monkeypatch.undo()
    room.check()


def test_only_so_many_lists_are_kept(room: Room) -> None:
    with room.overview._reading() as conn:
        for n in range(20):
            room.overview.learn(conn, {"wing": f"w{n}"}, [])
        assert room.overview.listed(conn, {"wing": "w3"}) is None
        assert room.overview.listed(conn, {"wing": "w19"}) == []
