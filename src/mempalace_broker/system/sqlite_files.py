"""SQLite databases of a palace, whatever their names are and whoever can write them."""

from __future__ import annotations

import os
import sqlite3
from urllib.parse import quote

# of Chroma and of mempalace's knowledge graph: those that we read
_TABLES = ("collections", "segments", "max_seq_id", "embeddings", "embeddings_queue", "embedding_metadata", "triples")
_VIEWS = f"SELECT name FROM sqlite_master WHERE type = 'view' AND lower(name) IN ({', '.join('?' * len(_TABLES))})"


def uri_of(path: str, query: str) -> str:
    """Return the URI by which SQLite opens a file, whose name may be any bytes. `query`: such as "mode=ro"."""
    return f"file:{quote(os.fsencode(path))}?{query}"


def refuse_views(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where a view has the name of a table that we read. Call it before any other query.

    Such a view runs a query of whoever wrote it, which need not end.
    """
    found = db.execute(_VIEWS, _TABLES).fetchone()
    if found is not None:
        raise sqlite3.DatabaseError(f"{found[0]} is a view instead of a table")
