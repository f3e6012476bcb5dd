"""A palace that does not exist yet stays so until something is written to it.

To mempalace a palace exists when its folder does, and a read of a folder without a database makes Chroma create one
(seen with search, 3.11.0). The broker's lock files make the folder before anything is stored, so with nothing in it
but files of ours we answer as mempalace does where there is no folder.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import Mempalace

_OURS = ("broker.", "broker-", "engine.lock")


def only_ours(folder: str) -> bool:
    """Whether there is nothing in the folder but the broker's own files; also where it can't be read."""
    try:
        return all(name.startswith(_OURS) for name in os.listdir(folder))
    except OSError:
        return True


def keep_absent(mempalace: Mempalace) -> None:
    """See the module. A mempalace whose parts are named otherwise is left as it is."""
    chroma = mempalace.module("backends.chroma")
    normalise: Any = getattr(chroma, "_normalize_get_collection_args", None)
    backend: Any = getattr(chroma, "ChromaBackend", None)
    not_found: Any = getattr(chroma, "PalaceNotFoundError", None)
    stock: Any = getattr(backend, "get_collection", None)
    if normalise is None or not_found is None or stock is None:
        return

    def get_collection(self: Any, *args: Any, **kwargs: Any) -> Any:
        reference, _, create, _ = normalise(args, dict(kwargs))  # it empties what it is given
        path = reference.local_path
        if path is not None and not create and only_ours(path):
            raise not_found(path)
        return stock(self, *args, **kwargs)

    backend.get_collection = get_collection
