"""A palace's database as Chroma keeps it, as far as reading drawers by SQL needs it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mempalace_broker.engine.tuneups.chroma_writes import Write

DRAWERS, CLOSETS = "11111111-aaaa", "22222222-bbbb"
_SCHEMA = """
CREATE TABLE embeddings (id INTEGER PRIMARY KEY, segment_id TEXT, embedding_id TEXT, UNIQUE (segment_id, embedding_id));
CREATE TABLE embedding_metadata (id INTEGER, key TEXT, string_value TEXT, int_value INTEGER, float_value REAL,
    bool_value INTEGER, PRIMARY KEY (id, key));
CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT);
CREATE TABLE max_seq_id (segment_id TEXT PRIMARY KEY, seq_id INTEGER);
"""
_COLUMNS = {str: "string_value", int: "int_value", float: "float_value", bool: "bool_value"}


class ChromaDatabase:
    """The database of a palace in `folder`, with drawers and closets."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chroma.sqlite3"
        self.behind = False  # a write is queued and not applied yet
        self._changes = 0
        with self._writing() as db:
            db.executescript(_SCHEMA)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as db, db:
            yield db
        self._changes += 1
        then = time.time_ns() - 10**12 + self._changes * 10**9
        os.utime(self.path, ns=(then, then))

    def open_reader(self, db_path: str) -> Any:
        """As mempalace's function of this name."""
        assert db_path == str(self.path)
        return sqlite3.connect(f"file:{db_path}?mode=ro", uri=True, isolation_level=None)

    def ready(self, conn: Any, collection_name: str) -> tuple[str, str] | None:
        """As mempalace's `_sqlite_ready_metadata_segment`."""
        assert conn.in_transaction
        return None if self.behind else (DRAWERS, f"{DRAWERS}-rows")

    def apply(self, write: Write, metadata: dict[str, Any] | None, *, numbered: bool = True) -> None:
        """Store rows with this metadata; without it, remove them. `numbered`: as Chroma does, else as by plain SQL."""
        segment = f"{write.collection}-rows"
        with self._writing() as db:
            for name in write.ids or ():
                row = segment, name
                for (number,) in db.execute("SELECT id FROM embeddings WHERE segment_id = ? AND embedding_id = ?", row):
                    db.execute("DELETE FROM embedding_metadata WHERE id = ?", (number,))
                    db.execute("DELETE FROM embeddings WHERE id = ?", (number,))
                if metadata is not None:
                    made = db.execute("INSERT INTO embeddings (segment_id, embedding_id) VALUES (?, ?)", row).lastrowid
                    for key, value in {"chroma:document": f"text of {name}", **metadata}.items():
                        column = _COLUMNS[type(value)]
                        statement = f"INSERT INTO embedding_metadata (id, key, {column}) VALUES (?, ?, ?)"
                        db.execute(statement, (made, key, value))
                if numbered:
                    seq = db.execute("INSERT INTO embeddings_queue (topic) VALUES (?)", (write.collection,)).lastrowid
                    db.execute("INSERT OR REPLACE INTO max_seq_id VALUES (?, ?)", (segment, seq))

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """Every drawer's row and its metadata."""
        with closing(sqlite3.connect(self.path)) as db:
            numbers = db.execute("SELECT id, embedding_id FROM embeddings WHERE segment_id = ?", (f"{DRAWERS}-rows",))
            return [(name, self._metadata(db, number)) for number, name in numbers.fetchall()]

    @staticmethod
    def _metadata(db: sqlite3.Connection, number: int) -> dict[str, Any]:
        rows = db.execute(
            "SELECT key, string_value, int_value, float_value, bool_value FROM embedding_metadata "
            "WHERE id = ? AND key NOT LIKE 'chroma:%'",
            (number,),
        )
        found = {}
        for key, text, whole, real, truth in rows:
            found[key] = bool(truth) if truth is not None else next(v for v in (text, whole, real) if v is not None)
        return found
