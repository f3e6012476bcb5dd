"""Where the drawers are if not in Chroma, and whether that backend answers.

Nothing here shows a password: only host, port and database of an address are passed on.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from ..protocol.engine_frames import BAD_STORAGE
from ..system.palace_stores import SERVERS
from .adapter import EngineFailure, Mempalace

DSN = "MEMPALACE_PGVECTOR_DSN"
_ADDRESSES = {"qdrant": ("MEMPALACE_QDRANT_URL", "qdrant_url"), "milvus": ("MEMPALACE_MILVUS_URI", "milvus_uri")}
_PRIVATE = 'put it under env of [palaces."{}"] in config.toml, see docs/settings.md, and take it out of config.json'
_URL = "write it as postgresql://user:password@host/database"
_MENDED = "check that the database runs and accepts the password in config.toml; nothing has to be restarted here"
_REMOTE, _EMBEDDING_URL = "openai-compat", "MEMPALACE_EMBEDDING_API_URL"
_EMBEDDING_HINT = f'put {_EMBEDDING_URL} under env of [palaces."{{}}"] in config.toml, see docs/settings.md'
_LOCAL = "[local]"  # as psql shows the socket that PostgreSQL's client takes if no host is named
_HEAD, _LONGEST = 400, 300  # bytes of an answer, characters of an error


def storage_facts(mempalace: Mempalace) -> dict[str, Any]:
    """Return facts for the hello frame: `storage` of `describe_storage`, and `embedder`, the model for new texts."""
    name = getattr(mempalace.module("embedding"), "current_model_name", None)
    try:
        embedder = str(name()) if name is not None else None
    except Exception as exc:  # noqa: BLE001 - of a model that is configured wrongly; calls report it
        print(f"the embedding model is unknown: {exc}", file=sys.stderr)
        embedder = None
    return {"storage": describe_storage(mempalace), "embedder": embedder}


def describe_storage(mempalace: Mempalace) -> dict[str, Any] | None:
    """Describe the storage; None for Chroma, and if it is unknown.

    The fields are `where`, `from` (env, config.json, default), and for pgvector `tables` (the prefix of their names),
    `namespace` and `shared_namespace`.

    Raises:
        EngineFailure: the address of the database can't be read, or its client is missing.
    """
    try:
        return _describe(mempalace, mempalace.backend)
    except EngineFailure:
        raise
    except Exception as exc:  # noqa: BLE001 - a mempalace that changed may raise anything; calls go on
        print(f"the storage is unknown: {exc}", file=sys.stderr)
        return None


def _describe(mempalace: Mempalace, backend: str | None) -> dict[str, Any] | None:
    if backend == "pgvector":
        return _pgvector(mempalace)
    if backend in _ADDRESSES:
        variable, name = _ADDRESSES[backend]
        address = str(getattr(mempalace.server._config, name, "") or "")
        return {"where": _host(address) or mempalace.palace_path(), "from": _source(mempalace, variable, name)}
    return None if backend in (None, "chroma") else {"where": mempalace.palace_path(), "from": "default"}


def _host(address: str) -> str:
    """Return host and port of a URL; another address as it is. A password goes first: it may hold any sign but @."""
    bare = address.rpartition("@")[2]
    split = urlsplit(f"//{bare.rpartition('://')[2]}") if "://" in address else None
    return f"{split.hostname}:{split.port or ''}" if split is not None and split.hostname else bare


def _pgvector(mempalace: Mempalace) -> dict[str, Any]:
    module = mempalace.module("backends.pgvector")
    config = module._PgVectorConfig.from_options()
    path = mempalace.palace_path()
    reference = mempalace.server.PalaceRef(id=path, local_path=path)
    return {
        "where": _place(config.dsn),
        "from": _source(mempalace, DSN, "pgvector_dsn"),
        "tables": module.PgVectorBackend()._table_prefix(palace=reference, config=config),
        "namespace": config.namespace,
        "shared_namespace": config.shared_namespace,
    }


def _place(dsn: str) -> str:
    """Return host, port and database. PostgreSQL's own message about a bad address would quote it with its password."""
    try:
        conninfo: Any = importlib.import_module("psycopg.conninfo")
    except ImportError as exc:
        hint = "install it beside mempalace: pip install 'mempalace[pgvector]'"
        raise EngineFailure(BAD_STORAGE, f"{sys.executable} can't import psycopg ({exc}).", hint) from exc
    try:
        said = conninfo.conninfo_to_dict(dsn)
    except Exception:  # noqa: BLE001 - of psycopg's own kind; its text must not be shown
        raise EngineFailure(BAD_STORAGE, f"{DSN} can't be read.", f"{_URL}, then mempalace-broker restart") from None
    host = said.get("host") or said.get("hostaddr") or _LOCAL
    return f"{host}:{said.get('port', 5432)}/{said.get('dbname', '')}"


def _source(mempalace: Mempalace, variable: str, name: str) -> str:
    if os.environ.get(variable):
        return "env"
    said = getattr(mempalace.server._config, "_file_config", None)
    return "config.json" if isinstance(said, dict) and said.get(name) else "default"


def storage_warnings(mempalace: Mempalace) -> list[dict[str, str]]:
    """Return problems with the addresses of a PostgreSQL and of a server that embeds, each as `what` and `hint`; none
    if they are unknown.
    """
    try:
        problems = _address_problems(mempalace) if mempalace.backend == "pgvector" else []
        return [*problems, *_embedding_problems(mempalace)]
    except Exception as exc:  # noqa: BLE001 - as in describe_storage
        print(f"the database's address is unknown: {exc}", file=sys.stderr)
        return []


def _embedding_problems(mempalace: Mempalace) -> Iterator[dict[str, str]]:
    config = mempalace.server._config
    remote = getattr(config, "embedding_model", None) == _REMOTE
    if remote and _source(mempalace, _EMBEDDING_URL, "embedding_api_url") == "config.json":
        what = f"{mempalace.config_path()} names the server that gets all texts: who can write it can name another"
        yield {"what": what, "hint": _EMBEDDING_HINT.format(mempalace.palace_path())}


def _address_problems(mempalace: Mempalace) -> list[dict[str, str]]:
    dsn = str(mempalace.module("backends.pgvector")._PgVectorConfig.from_options().dsn)
    found = []
    if _source(mempalace, DSN, "pgvector_dsn") == "config.json":
        what = (
            f"{mempalace.config_path()} names the database: whoever can write that file can lead the engine to another"
        )
        found.append({"what": what, "hint": _PRIVATE.format(mempalace.palace_path())})
    if "://" not in dsn and "password" in dsn:
        what = f"{DSN} is not a URL: mempalace writes it with its password into pgvector_backend.json in the palace"
        found.append({"what": what, "hint": _URL})
    return found


class StorageWatch:
    """Notices when a database server stops answering our calls, and when it answers again."""

    def __init__(self, mempalace: Mempalace) -> None:
        self._mempalace = mempalace
        self.trouble: list[dict[str, str]] = []

    def changed(self, answer: bytes) -> bool:
        """Update `trouble` after this answer of the palace lane; return whether it has changed.

        The database is asked only if the answer reports an error, or if there was trouble before.
        """
        if self._mempalace.backend not in SERVERS or not (self.trouble or b"error" in answer[:_HEAD]):
            return False
        before, self.trouble = self.trouble, self._look()
        return self.trouble != before

    def _look(self) -> list[dict[str, str]]:
        try:
            backend = self._mempalace.module("palace").get_backend_for_palace(self._mempalace.palace_path())
            health = backend.health()
        except Exception as exc:  # noqa: BLE001 - whatever it raises, the backend does not work
            return [self._entry(str(exc))]
        return [] if health.ok else [self._entry(str(health.detail))]

    def _entry(self, why: str) -> dict[str, str]:
        what = f"{self._mempalace.backend} does not answer: {' '.join(why.split())[:_LONGEST]}"
        return {"what": what, "hint": _MENDED}
