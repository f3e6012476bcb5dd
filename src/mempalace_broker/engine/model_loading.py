"""Loads the embedding model on threads of its own, while mempalace is imported and the palace is opened; and has the
database checked on another.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from .database_check import DatabaseCheck
from .early_model import EarlyModel
from .lean_imports import lean_imports
from .minilm import minilm, model_missing
from .own_length import OwnLength


class ModelLoading:
    """Begins at once. Call it before mempalace is imported, and after its environment is set up.

    Attributes:
        database: the check of the palace's database. early: the model, as far as it is loaded ahead of chromadb.
        own_length: of the function in use, proved or not, once the model is loaded; None where there is no such model.
    """

    def __init__(self, palace: str) -> None:
        self.database = DatabaseCheck(palace)
        self.database.start()
        self._chosen = threading.Event()
        self.early = EarlyModel()
        self.own_length: OwnLength | None = None
        self._thread: threading.Thread | None = None
        try:
            importlib.import_module("mempalace")  # its settings for chromadb first
            self.early.start(importlib.import_module("mempalace.config").MempalaceConfig())
            importlib.import_module("chromadb")
        except Exception as exc:  # noqa: BLE001 - importing the server says what is wrong
            print(f"nothing is loaded ahead: {exc}", file=sys.stderr)
            self._chosen.set()
            return
        self._thread = threading.Thread(target=self._load, name="engine-model", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            function: Any = minilm(importlib.import_module("mempalace.embedding"))
            self._chosen.set()
            if function is None or model_missing(function) is not None:
                self.early.let_go()
                return
            function.tokenizer  # noqa: B018 - both are made when they are first asked for
            self.early.hand_over(function)
            function.model  # noqa: B018
            self.own_length = OwnLength(function)
            self.own_length.prove()
        except Exception as exc:  # noqa: BLE001 - whoever embeds says what is wrong
            print(f"the model is not loaded ahead: {exc}", file=sys.stderr, flush=True)
        finally:
            self._chosen.set()

    def wait_until_chosen(self) -> None:
        """Return once mempalace's embedding function is made: asked for twice at once, 3.4.0 makes two."""
        self._chosen.wait()

    def wait(self) -> None:
        """Return once the model is loaded, or can't be."""
        if self._thread is not None:
            self._thread.join()


@contextlib.contextmanager
def importing(palace: str, *, lean: bool) -> Iterator[ModelLoading | None]:
    """Import mempalace within the block.

    `lean`: nothing that isn't used; the model is loaded meanwhile, and the palace's database checked.
    """
    if not lean:
        yield None
        return
    with lean_imports():
        loading = ModelLoading(palace)
        yield loading
        loading.wait_until_chosen()


def give_memory_back() -> None:
    """Return what loading took and does not need any more to the system: a fifth of the engine's memory with glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
