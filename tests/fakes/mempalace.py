"""A mempalace without mempalace, for tests of tune-ups."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class FakeMempalace:
    """As much of adapter.Mempalace as tune-ups use, over modules made of namespaces."""

    def __init__(self, path: Path, server: Any = None, **modules: Any) -> None:
        self.server = server or SimpleNamespace()
        self.modules = {name.replace("__", "."): module for name, module in modules.items()}
        self.path = path
        self.version = "3.4.0"
        self.after_call: list[Any] = []
        self.before_close: list[Any] = []
        self.after_close: list[Any] = []
        self.before_open: list[Any] = []
        self.refusals: list[Any] = []
        self.warnings: list[Any] = []
        self.prefetch_embedding: Any = None
        self.keep_embeddings: Any = None
        self.calls_at_boundary = 8
        self.between_texts: Any = None
        self.backend: str | None = "chroma"
        self.model: Any = None
        self.options = SimpleNamespace(journal=None)

    def module(self, name: str) -> Any:
        return self.modules.get(name)

    def palace_path(self) -> str:
        return str(self.path)

    def is_chroma(self) -> bool:
        return self.backend == "chroma"

    def config_path(self) -> str:
        return str(self.path.parent / "config.json")


def touch(path: Path, *, ago_s: float, data: bytes = b"x") -> None:
    """Write a file of the palace that was changed so long ago."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    then = time.time_ns() - int(ago_s * 1e9)
    os.utime(path, ns=(then, then))
