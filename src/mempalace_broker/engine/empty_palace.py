"""A palace counts as missing until something is written to it.

For mempalace a palace exists when its folder does, and reading from a folder without a database makes Chroma create
one (seen with search, 3.11.0). The broker's lock files create the folder before anything is stored. So while only our
own files are in it, reads are answered as mempalace answers where the folder is missing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import Mempalace

BROKER_FILES = ("broker.", "broker-", "engine.lock")


def has_only_broker_files(folder: str) -> bool:
    """Whether the folder holds nothing but the broker's own files, is missing, or can't be read."""
    try:
        return all(name.startswith(BROKER_FILES) for name in os.listdir(folder))
    except OSError:
        return True


def treat_empty_palace_as_missing(mempalace: Mempalace) -> None:
    """Make reads of an empty palace raise mempalace's own PalaceNotFoundError.

    A mempalace without the functions that this builds on stays as it is.
    """
    chroma = mempalace.module("backends.chroma")
    normalise: Any = getattr(chroma, "_normalize_get_collection_args", None)
    backend: Any = getattr(chroma, "ChromaBackend", None)
    not_found: Any = getattr(chroma, "PalaceNotFoundError", None)
    stock: Any = getattr(backend, "get_collection", None)
    if normalise is None or not_found is None or stock is None:
        return

    def get_collection(self: Any, *args: Any, **kwargs: Any) -> Any:
        reference, _, create, _ = normalise(args, dict(kwargs))  # a copy: it empties its argument
        path = reference.local_path
        if path is not None and not create and has_only_broker_files(path):
            raise not_found(path)
        return stock(self, *args, **kwargs)

    backend.get_collection = get_collection
