"""The dimension is written where stock mempalace 3.4.0 would take an index with deletes for corrupt."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.engine.index_dimension import DimensionWriter, with_dimension
from mempalace_broker.engine.index_metadata import META

NAME = "11111111-2222-3333-4444-555555555555"


def metadata(labels: int, total: int, dimension: int | None = None) -> bytes:
    """As Chroma's Rust writes it: without a memo."""
    names = {f"d{n}": n + 1 for n in range(labels)}
    value: dict[str, Any] = {"dimensionality": dimension, "total_elements_added": total, "id_to_label": names}
    return _without_memo(value)


def _without_memo(value: dict[str, Any]) -> bytes:
    def item(part: Any) -> bytes:
        if part is None:
            return b"N"
        if isinstance(part, int):
            return b"J" + part.to_bytes(4, "little")
        if isinstance(part, str):
            return b"X" + len(part).to_bytes(4, "little") + part.encode()
        return b"}(" + b"".join(item(key) + item(entry) for key, entry in part.items()) + b"u"

    return b"\x80\x03" + item(value) + b"."


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / NAME
    folder.mkdir()
    with closing(sqlite3.connect(tmp_path / "chroma.sqlite3")) as db, db:
        db.executescript(
            "CREATE TABLE segments (id TEXT, collection TEXT); CREATE TABLE collections (id TEXT, dimension INTEGER);"
        )
        db.execute("INSERT INTO segments VALUES (?, 'c')", (NAME,))
        db.execute("INSERT INTO collections VALUES ('c', 384)")
    return folder


def write(index: Path) -> list[str]:
    said: list[str] = []
    DimensionWriter(str(index.parent), said.append).write()
    return said


def test_an_index_with_deletes_gets_its_dimension_and_nothing_else_changes(index: Path) -> None:
    (index / META).write_bytes(metadata(2, 5))
    assert write(index) == []
    after = (index / META).read_bytes()
    assert after == metadata(2, 5, 384)
    assert pickle.loads(after) == {**pickle.loads(metadata(2, 5)), "dimensionality": 384}
    assert [path.name for path in index.iterdir()] == [META]


@pytest.mark.parametrize(
    "data", [metadata(2, 2), metadata(0, 3), metadata(2, 5, 384), metadata(2, 5)[:-1], b"", pickle.dumps({"a": 1}, 3)]
)
def test_every_other_metadata_stays_as_it_is(index: Path, data: bytes) -> None:
    (index / META).write_bytes(data)
    assert write(index) == []
    assert (index / META).read_bytes() == data


def test_an_index_is_looked_at_once_until_it_changes(index: Path) -> None:
    (index / META).write_bytes(metadata(2, 5))
    said: list[str] = []
    writer = DimensionWriter(str(index.parent), said.append)
    writer.write()
    (index.parent / "chroma.sqlite3").unlink()
    writer.write()
    assert said == []
    (index / META).write_bytes(metadata(2, 6))
    writer.write()
    assert "can't be written" in said[0]
    assert (index / META).read_bytes() == metadata(2, 6)


def test_a_database_that_is_a_link_or_lies_is_not_believed(index: Path) -> None:
    (index / META).write_bytes(metadata(2, 5))
    database = index.parent / "chroma.sqlite3"
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE collections SET dimension = -1")
    assert write(index) == []
    assert (index / META).read_bytes() == metadata(2, 5)
    database.rename(index.parent / "elsewhere")
    database.symlink_to("elsewhere")
    assert "can't be written" in write(index)[0]
    assert (index / META).read_bytes() == metadata(2, 5)


def test_a_palace_that_is_missing_has_no_index(tmp_path: Path) -> None:
    assert write(tmp_path / "nowhere" / NAME) == []


def test_the_number_is_written_in_full() -> None:
    assert with_dimension(metadata(1, 2), 70_000) == metadata(1, 2, 70_000)
