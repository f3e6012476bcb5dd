"""What a SQLite database that others can write may contain: tables, whatever their rows say.

Where a query expects a table, a view of that name runs a query of whoever wrote it, which need not end.
"""

from __future__ import annotations

import sqlite3

# of Chroma and of mempalace's knowledge graph: those that we read
_TABLES = ("collections", "segments", "max_seq_id", "embeddings", "embeddings_queue", "embedding_metadata", "triples")
_VIEWS = f"SELECT name FROM sqlite_master WHERE type = 'view' AND lower(name) IN ({', '.join('?' * len(_TABLES))})"


def refuse_views(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where a view has the name of such a table. Call it before any other query."""
    found = db.execute(_VIEWS, _TABLES).fetchone()
    if found is not None:
        raise sqlite3.DatabaseError(f"{found[0]} is a view instead of a table")
