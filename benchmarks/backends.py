"""The backends of mempalace: what a world needs to keep its drawers there instead of in Chroma."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from benchmarks.world import World
from mempalace_broker.system.private import SETTINGS
from mempalace_broker.system.shared_files import replace_file
from tests.postgres import DSN, Postgres

CHROMA, PGVECTOR = "chroma", "pgvector"
BACKENDS = (CHROMA, PGVECTOR, "sqlite_exact", "rust_exact", "milvus")
VARIABLE = "MEMPALACE_BACKEND"


@contextlib.contextmanager
def backend_env(name: str) -> Iterator[dict[str, str]]:
    """Yield the environment that makes mempalace use a backend; pgvector has a PostgreSQL of its own meanwhile."""
    if name == PGVECTOR:
        with Postgres() as server:
            yield {VARIABLE: name, DSN: server.dsn()}
    else:
        yield {} if name == CHROMA else {VARIABLE: name}


def keep_address(world: World, env: Mapping[str, str]) -> None:
    """Put the database's address where a broker reads it."""
    if DSN in env:
        folder = world.home / ".private"
        folder.mkdir(mode=0o700, exist_ok=True)
        replace_file(str(folder / SETTINGS), f'[broker]\nenv = {{ {DSN} = "{env[DSN]}" }}\n'.encode())
