"""Reads drawers from the database by SQL: the number of each kind, and single drawers without reading all of them.

`conn` is always a connection of mempalace's own, inside a transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_AT_ONCE = 500  # values in one statement
_VALUES = ("string_value", "int_value", "float_value", "bool_value")

Kind = tuple[Any, ...]  # (wing, room, hall, date), each None where a drawer has none
Row = tuple[str, dict[str, Any]]  # id and metadata


class Position(NamedTuple):
    """How far the database has got.

    Attributes:
        collection: id of the drawers' collection. segment: of its rows.
        applied: number of the last write to it. written: number of the last write to any collection.
    """

    collection: str
    segment: str
    applied: int
    written: int

    def after(self, collection: str, rows: int) -> Position:
        """Return the position after one more write of so many rows."""
        written = self.written + rows
        return self._replace(written=written, applied=written if collection == self.collection else self.applied)


def position(conn: Any, ready: tuple[str, str] | None) -> Position | None:
    """Return the position; None if it is unknown. `ready`: ids of collection and segment."""
    if ready is None:
        return None
    applied = conn.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (ready[1],)).fetchone()
    written = conn.execute("SELECT MAX(seq_id) FROM embeddings_queue").fetchone()[0]
    if applied is None or type(applied[0]) is not int or type(written) is not int:
        return None
    return Position(str(ready[0]), str(ready[1]), applied[0], written)


def kinds(conn: Any, segment: str, ids: Iterable[str] | None = None) -> Counter[Kind]:
    """Count drawers by kind: all of them, or those with these ids."""
    found: Counter[Kind] = Counter()
    for condition, values in _parts("e.embedding_id", ids):
        rows = conn.execute(
            f"""
            SELECT {_as_text("w")}, {_as_text("r")}, {_as_text("h")}, d.string_value, COUNT(*)
            FROM embeddings e
            LEFT JOIN embedding_metadata w ON w.id = e.id AND w.key = 'wing'
            LEFT JOIN embedding_metadata r ON r.id = e.id AND r.key = 'room'
            LEFT JOIN embedding_metadata h ON h.id = e.id AND h.key = 'hall'
            LEFT JOIN embedding_metadata d ON d.id = e.id AND d.key = 'date'
            WHERE e.segment_id = ? AND {condition}
            GROUP BY 1, 2, 3, 4
            """,
            (segment, *values),
        )
        for *kind, count in rows:
            found[tuple(kind)] += count
    return found


def logical_ids(conn: Any, segment: str, ids: Iterable[str], parent_keys: Iterable[str]) -> set[str] | None:
    """Return every id under which one of these rows may be listed; None if one is not a string."""
    found = set(ids)
    for condition, values in _parts("e.embedding_id", list(found)):
        rows = conn.execute(
            f"""
            SELECT p.string_value FROM embeddings e JOIN embedding_metadata p ON p.id = e.id
            WHERE e.segment_id = ? AND p.key IN ({_marks(parent_keys)}) AND {condition}
            """,
            (segment, *parent_keys, *values),
        ).fetchall()
        if any(parent is None for (parent,) in rows):
            return None
        found.update(parent for (parent,) in rows)
    return found


def rows_listed_as(conn: Any, segment: str, listed: Iterable[str], parent_keys: Iterable[str]) -> list[Row]:
    """Return the rows that may be listed under these ids, with their metadata."""
    numbers: set[int] = set()
    for condition, values in _parts("embedding_id", listed):
        statement = f"SELECT id FROM embeddings WHERE segment_id = ? AND {condition}"
        numbers.update(number for (number,) in conn.execute(statement, (segment, *values)))
    for condition, values in _parts("p.string_value", listed):
        statement = f"""
            SELECT e.id FROM embedding_metadata p JOIN embeddings e ON e.id = p.id AND e.segment_id = ?
            WHERE p.key IN ({_marks(parent_keys)}) AND {condition}
            """
        numbers.update(number for (number,) in conn.execute(statement, (segment, *parent_keys, *values)))
    return _with_metadata(conn, sorted(numbers))


def _with_metadata(conn: Any, numbers: list[int]) -> list[Row]:
    present = {row[1] for row in conn.execute("PRAGMA table_info(embedding_metadata)")}
    columns = ", ".join(f"m.{name}" if name in present else "NULL" for name in _VALUES)
    rows: dict[str, dict[str, Any]] = {}
    for condition, values in _parts("e.id", numbers):
        found = conn.execute(
            f"""
            SELECT e.embedding_id, m.key, {columns} FROM embeddings e
            LEFT JOIN embedding_metadata m ON m.id = e.id AND substr(m.key, 1, 7) != 'chroma:'
            WHERE {condition} ORDER BY e.id
            """,
            values,
        )
        for name, key, *cells in found:
            metadata = rows.setdefault(name, {})
            value = next((cell for cell in cells if cell is not None), None)
            if key and value is not None:
                metadata[key] = bool(value) if cells[:3] == [None, None, None] else value
    return list(rows.items())


def _as_text(table: str) -> str:
    return f"COALESCE({table}.string_value, CAST({table}.int_value AS TEXT), CAST({table}.float_value AS TEXT))"


def _marks(values: Iterable[Any]) -> str:
    return ",".join("?" for _ in values)


def _parts(column: str, values: Iterable[Any] | None) -> Iterator[tuple[str, list[Any]]]:
    """Yield a condition and its values for each statement; for None, one condition that is always true."""
    if values is None:
        yield "1", []
        return
    given = list(values)
    for start in range(0, len(given), _AT_ONCE):
        part = given[start : start + _AT_ONCE]
        yield f"{column} IN ({_marks(part)})", part
