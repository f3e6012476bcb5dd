"""rows-by-id: what it asks PostgreSQL for, and when it leaves a call to mempalace."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups.rows_by_id import ROWS_BY_ID
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.mempalace import FakeMempalace


class Client:
    def __init__(self) -> None:
        self.sent: list[tuple[str, list[Any]]] = []

    def _execute(self, sql: str, params: Any = None, *, fetch: bool = False, many: bool = False) -> Any:
        assert fetch
        assert not many
        self.sent.append((sql, params))
        return [("a", "text", {})]

    @staticmethod
    def _row(record: Any, *, with_embedding: bool, with_distance: bool) -> Any:
        return {"id": record[0], "embedding": with_embedding, "distance": with_distance}


class Collection:
    """As mempalace's, with `stock` as its answer wherever it reads its whole table."""

    def __init__(self, *, exists: bool = True) -> None:
        self._table, self._client, self._exists = "drawers", Client(), exists

    def _ensure_open(self) -> None:
        pass

    def _table_exists(self) -> bool:
        return self._exists

    def _rows(
        self, *, ids: Any = None, where: Any = None, where_document: Any = None, with_embedding: Any = False
    ) -> Any:
        return "stock"


@pytest.fixture
def module() -> SimpleNamespace:
    class Fresh(Collection):
        _rows = Collection._rows

    return SimpleNamespace(PgVectorCollection=Fresh, _PgVectorClient=Client, _quote_identifier=lambda name: f'"{name}"')


def apply(path: Path, module: SimpleNamespace, backend: str = "pgvector") -> None:
    mempalace = FakeMempalace(path, SimpleNamespace(), backends__pgvector=module)
    mempalace.backend = backend
    ROWS_BY_ID.apply(mempalace)  # type: ignore[arg-type]


def test_named_rows_are_asked_for_by_their_ids(tmp_path: Path, module: SimpleNamespace) -> None:
    apply(tmp_path, module)
    collection = module.PgVectorCollection()
    found = collection._rows(ids=("a", "b", "a", "nul \0", "half \ud83d"), with_embedding=True)
    assert found == [{"id": "a", "embedding": True, "distance": False}]
    sql = 'SELECT id, document, metadata, embedding FROM "drawers" WHERE id = ANY(%s)'
    assert collection._client.sent == [(sql, [["a", "b"]])]


@pytest.mark.parametrize(
    "asked",
    [{}, {"where": {"wing": "w"}}, {"ids": ["a"], "where": {"wing": "w"}}, {"ids": ["a"], "where_document": {"x": 1}}],
)
def test_other_questions_are_left_to_mempalace(tmp_path: Path, module: SimpleNamespace, asked: dict[str, Any]) -> None:
    apply(tmp_path, module)
    collection = module.PgVectorCollection()
    assert collection._rows(**asked) == "stock"
    assert collection._rows(ids=["a", 1]) == "stock"
    assert module.PgVectorCollection(exists=False)._rows(ids=["a"]) == "stock"
    assert not collection._client.sent


@pytest.mark.parametrize("change", ["backend", "rows", "client"])
def test_another_mempalace_is_left_alone(tmp_path: Path, module: SimpleNamespace, change: str) -> None:
    if change == "rows":
        module.PgVectorCollection._rows = lambda self, ids: None
    if change == "client":
        module._PgVectorClient = SimpleNamespace(_execute=lambda text: None, _row=Client._row)
    stock = module.PgVectorCollection._rows
    with pytest.raises(DoesNotFit):
        apply(tmp_path, module, "chroma" if change == "backend" else "pgvector")
    assert module.PgVectorCollection._rows is stock
