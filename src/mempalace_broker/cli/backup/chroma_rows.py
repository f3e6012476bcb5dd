"""Reads the drawers of a Chroma database as an engine that opens it would find them.

Chroma writes into a queue first and then applies it to its tables. After a write that failed in between (a full disk),
the queue is ahead of the tables, and whoever opens the database next applies the rest. A snapshot is only read, so the
rest is applied here, in memory. Anybody who can write the palace may have put any value into any row.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from ...protocol.jsonrpc import load_object

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_TEXT = "chroma:document"  # the key that has a drawer's text
_ADD, _UPDATE, _DELETE = 0, 1, 3  # operations in embeddings_queue; 2 is upsert
_COLLECTIONS = """
    SELECT c.name, c.id, s.id, m.seq_id
    FROM collections c JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA'
    LEFT JOIN max_seq_id m ON m.segment_id = s.id ORDER BY c.name
"""
_QUEUED = """
    SELECT operation, id, CAST(metadata AS BLOB)
    FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id
"""
_MAX_NUMBER = (1 << 63) - 1  # SQLite's
_VALUE = "coalesce(m.string_value, m.int_value, m.float_value, m.bool_value)"
_JOINED = "embeddings e LEFT JOIN embedding_metadata m ON m.id = e.id"
_ALL = f"SELECT e.embedding_id, m.key, {_VALUE} FROM {_JOINED} WHERE +e.segment_id = ? ORDER BY e.id"  # + spares a sort
_ONE = f"SELECT m.key, {_VALUE} FROM {_JOINED} WHERE e.segment_id = ? AND e.embedding_id = ?"
_SPREAD = "SELECT embedding_id FROM embeddings WHERE segment_id = ? ORDER BY id % 997, id LIMIT ?"

_Writes = list[tuple[int, dict[str, Any]]]  # operation and metadata of each


class Drawer(NamedTuple):
    """A drawer: its collection, id, text and other metadata."""

    collection: str
    id: str
    text: str
    metadata: dict[str, Any]


def drawers(db: sqlite3.Connection) -> Iterator[Drawer]:
    """All drawers of all collections, those of one collection in a row. Raises sqlite3.Error."""
    for name, segment, queued in _collections(db):
        for id_, rows in itertools.groupby(db.execute(_ALL, (segment,)), key=lambda row: row[0]):
            yield from _drawer(name, id_, dict(row[1:] for row in rows), queued.pop(id_, []))
        for id_, writes in queued.items():
            yield from _drawer(name, id_, None, writes)


def sample(db: sqlite3.Connection, collection: str, most: int) -> tuple[int, list[Drawer]]:
    """How many drawers a collection has, and at most so many of the queued ones and of the others.

    Raises:
        sqlite3.Error: it can't be read.
    """
    count = 0
    found: list[Drawer] = []
    for name, segment, queued in _collections(db):
        if name == collection:
            count = db.execute("SELECT count(*) FROM embeddings WHERE segment_id = ?", (segment,)).fetchone()[0]
            for id_, writes in queued.items():
                before = _stored(db, segment, id_)
                after = list(_drawer(name, id_, before, writes))
                count += len(after) - (before is not None)
                found += after[: most - len(found)]
            ids = [row[0] for row in db.execute(_SPREAD, (segment, most + len(queued)))]
            for id_ in [id_ for id_ in ids if id_ not in queued][:most]:
                found += _drawer(name, id_, _stored(db, segment, id_), [])
    return count, found


def _collections(db: sqlite3.Connection) -> Iterator[tuple[str, str, dict[str, _Writes]]]:
    """Each collection: name, segment, and the writes that are not applied yet, by id."""
    for name, collection, segment, applied in db.execute(_COLLECTIONS).fetchall():
        queued: dict[str, _Writes] = {}
        for operation, id_, said in db.execute(_QUEUED, (_number(applied), f"%{collection}")):
            queued.setdefault(id_, []).append((operation, load_object(said)))
        yield name, segment, queued


def _stored(db: sqlite3.Connection, segment: str, id_: str) -> dict[str, Any] | None:
    """What the tables have of a drawer, None if nothing."""
    rows = db.execute(_ONE, (segment, id_)).fetchall()
    return dict(rows) if rows else None


def _drawer(collection: str, id_: str, metadata: dict[str, Any] | None, writes: _Writes) -> Iterator[Drawer]:
    """The drawer after these writes, if it is there then. `metadata`: before them, None where it was not there."""
    for operation, said in writes:
        if operation == _DELETE:
            metadata = None
        elif metadata is None:
            metadata = None if operation == _UPDATE else said
        elif operation != _ADD:  # an add of what is there does nothing
            metadata = metadata | said
    if metadata is not None:
        known = {str(key): value for key, value in metadata.items() if None not in (key, value)}
        yield Drawer(collection, id_, str(known.pop(_TEXT, "")), known)


def _number(seq_id: Any) -> int:
    """A sequence number, 0 for anything else; Chroma 0.6 stored it as big-endian bytes."""
    number = int.from_bytes(seq_id, "big") if isinstance(seq_id, bytes) else seq_id
    return number if isinstance(number, int) and number <= _MAX_NUMBER else 0
