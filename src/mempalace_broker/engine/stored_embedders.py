"""Builds no embedding function from what is stored in the palace.

With each collection Chroma stores which function embedded its texts, and with which settings. To show or change the
collection it builds that function anew. Some of them load a model together with code that lies beside it, or send texts
to an address in their settings; and whoever reaches the palace may have written what is stored. mempalace hands Chroma
a function of its own, so a stored one needs a name and settings, and never embeds.
"""

from __future__ import annotations

import importlib
from typing import Any

_TABLES = ("known_embedding_functions", "sparse_known_embedding_functions")
_USERS = ("chromadb.utils.embedding_functions", "chromadb.api.collection_configuration")
_HARMLESS = frozenset({"default", "onnx_mini_lm_l6_v2"})  # the model that mempalace takes itself, whatever the settings


class _Distrusting(dict):  # type: ignore[type-arg]  # Chroma's own table: the name of a function -> its class
    """A table whose functions are stand-ins."""

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        return found if name in _HARMLESS else _stand_in(name)


def distrust_stored_embedders() -> None:
    """Put stand-ins in place of the functions that Chroma knows, for the life of this process."""
    modules = [module for module in map(_imported, _USERS) if module is not None]
    for table in _TABLES:
        stock = next((getattr(module, table) for module in modules if hasattr(module, table)), None)
        if isinstance(stock, dict) and not isinstance(stock, _Distrusting):
            held = _Distrusting(stock)
            for module in modules:
                if hasattr(module, table):
                    setattr(module, table, held)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:  # another Chroma, or none
        return None


def _stand_in(of: str) -> Any:
    base: Any = importlib.import_module("chromadb.api.types").EmbeddingFunction

    class StoredFunction(base):  # type: ignore[misc]  # a class of the user's own Chroma
        def __init__(self, config: Any) -> None:
            self._config = config

        def __call__(self, input: Any) -> Any:
            raise RuntimeError(f"{of}, which is stored as embedding function, got {len(input)} texts and embeds none")

        @staticmethod
        def name() -> str:
            return of

        def get_config(self) -> Any:
            return self._config

        @staticmethod
        def build_from_config(config: Any) -> Any:
            return StoredFunction(config)

    return StoredFunction
