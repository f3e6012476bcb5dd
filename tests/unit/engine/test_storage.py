"""The watch over a database server; what names it is tried with a real one in tests/proc."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.storage import StorageWatch, describe_storage, storage_warnings
from tests.fakes.mempalace import FakeMempalace

BAD = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"{\\"error\\": \\"Backend error\\"}"}]}}'
GOOD = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"{\\"success\\": true}"}]}}'


class Database:
    """Its health, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.why = ""

    def health(self) -> Any:
        self.asked += 1
        if self.why == "raise":
            raise OSError("no route to host")
        return SimpleNamespace(ok=not self.why, detail=self.why)


def watch_over(database: Database, path: Path, backend: str = "pgvector") -> StorageWatch:
    mempalace: Any = FakeMempalace(path, palace=SimpleNamespace(get_backend_for_palace=lambda _path: database))
    mempalace.backend = backend
    return StorageWatch(mempalace)


def test_a_good_answer_asks_nothing(tmp_path: Path) -> None:
    database = Database()
    assert not watch_over(database, tmp_path).changed(GOOD)
    assert not watch_over(database, tmp_path, "chroma").changed(BAD)
    assert database.asked == 0


@pytest.mark.parametrize("why", ["connection refused\n\tis it running?", "raise"])
def test_trouble_is_told_once_and_so_is_its_end(tmp_path: Path, why: str) -> None:
    database = Database()
    watch = watch_over(database, tmp_path)
    assert not watch.changed(BAD)  # an error of the call's own
    database.why = why
    assert [watch.changed(BAD), watch.changed(BAD)] == [True, False]
    assert "\n" not in watch.trouble[0]["what"]
    database.why = ""
    assert watch.changed(GOOD)
    assert watch.trouble == []


def test_a_palace_of_chroma_has_no_other_storage(tmp_path: Path) -> None:
    mempalace: Any = FakeMempalace(tmp_path)
    assert describe_storage(mempalace) is None
    mempalace.backend = "sqlite_exact"
    assert describe_storage(mempalace) == {"where": str(tmp_path), "from": "default"}


@pytest.mark.parametrize("address", ["http://me:s3cret@db:6333", "me:s3cret@db:6333", "http://me:s3c/ret@DB:6333"])
def test_no_password_of_an_address_is_shown(tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    mempalace: Any = FakeMempalace(tmp_path)
    mempalace.backend = "qdrant"
    mempalace.server._config = SimpleNamespace(qdrant_url=address)
    assert (describe_storage(mempalace) or {})["where"] == "db:6333"
    assert "s3c" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"host": "db", "port": "5433", "dbname": "p"}, "db:5433/p"),
        ({"hostaddr": "10.0.0.7", "dbname": "p"}, "10.0.0.7:5432/p"),
        ({"dbname": "p"}, "[local]:5432/p"),  # the client takes a socket then
    ],
)
def test_the_place_of_a_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], where: str
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg.conninfo", SimpleNamespace(conninfo_to_dict=lambda _dsn: said))
    assert (describe_storage(with_pgvector(tmp_path)) or {})["where"] == where


def with_pgvector(path: Path) -> Any:
    """A palace in a PostgreSQL."""
    config = SimpleNamespace(dsn="postgresql://", namespace=None, shared_namespace=None)
    module = SimpleNamespace(
        _PgVectorConfig=SimpleNamespace(from_options=lambda: config),
        PgVectorBackend=lambda: SimpleNamespace(_table_prefix=lambda **_: "mempalace_0"),
    )
    mempalace: Any = FakeMempalace(path, backends__pgvector=module)
    mempalace.server = SimpleNamespace(PalaceRef=SimpleNamespace, _config=SimpleNamespace())
    mempalace.backend = "pgvector"
    return mempalace


def test_a_mempalace_that_changed_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mempalace: Any = FakeMempalace(tmp_path)
    mempalace.backend = "pgvector"
    assert describe_storage(mempalace) is None
    assert "is unknown" in capsys.readouterr().err
    assert storage_warnings(mempalace) == []


@pytest.mark.parametrize(
    ("model", "file", "env", "told"),
    [
        ("openai-compat", "http://evil", "", True),
        ("openai-compat", "http://evil", "http://mine", False),
        ("openai-compat", None, "", False),
        ("minilm", "http://evil", "", False),
    ],
)
def test_a_server_for_embeddings_that_the_shared_file_names_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, file: str | None, env: str, told: bool
) -> None:
    monkeypatch.setenv("MEMPALACE_EMBEDDING_API_URL", env)
    mempalace: Any = FakeMempalace(tmp_path)
    mempalace.server._config = SimpleNamespace(embedding_model=model, _file_config={"embedding_api_url": file})
    found = storage_warnings(mempalace)
    assert [("all texts" in entry["what"], "config.toml" in entry["hint"]) for entry in found] == [(True, True)] * told
