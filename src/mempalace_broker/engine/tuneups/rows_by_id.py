"""pgvector's rows by their ids: mempalace 3.11 reads the whole table for that, in each call that names a drawer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace

_ROWS = ["self", "ids", "where", "where_document", "with_embedding"]
_COLUMNS = "id, document, metadata"  # in the order that `_row` takes them in


def _storable(ids: Any) -> list[str] | None:
    """Return those of the ids that PostgreSQL can store; None if some are not text."""
    found = list(ids)
    if not all(isinstance(id_, str) for id_ in found):
        return None
    return [id_ for id_ in dict.fromkeys(found) if "\0" not in id_ and id_.encode("utf-8", "replace").decode() == id_]


def _apply(mempalace: Mempalace) -> None:
    require(mempalace.backend == "pgvector", "this palace is not stored in PostgreSQL")
    module = mempalace.module("backends.pgvector")
    collection, client = module.PgVectorCollection, module._PgVectorClient
    stock = collection._rows
    require(parameters(stock) == _ROWS, "pgvector reads its rows in another way")
    require(hasattr(collection, "_ensure_open"), "pgvector's collections are others")
    require({"sql", "params", "fetch"} <= set(parameters(client._execute)), "pgvector sends its statements differently")
    require({"with_embedding", "with_distance"} <= set(parameters(client._row)), "pgvector has other rows")

    def rows(
        self: Any, *, ids: Any = None, where: Any = None, where_document: Any = None, with_embedding: bool = False
    ) -> Any:
        self._ensure_open()
        wanted = None if ids is None or where or where_document else _storable(ids)
        if wanted is None or not self._table_exists():  # mempalace reports a missing table
            return stock(self, ids=ids, where=where, where_document=where_document, with_embedding=with_embedding)
        columns = f"{_COLUMNS}, embedding" if with_embedding else _COLUMNS
        sql = f"SELECT {columns} FROM {module._quote_identifier(self._table)} WHERE id = ANY(%s)"
        found = self._client._execute(sql, [wanted], fetch=True)
        return [self._client._row(row, with_embedding=with_embedding, with_distance=False) for row in found or []]

    replace(rows, "_rows", collection)


ROWS_BY_ID = TuneUp(
    "rows-by-id",
    "PostgreSQL is asked for the rows that a call names",
    "mempalace has it send the whole table and looks for them there",
    _apply,
    any_backend=True,
)
