"""Tells who asks of each write that this process makes through Chroma."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Callable

from .tuneup import DoesNotFit, parameters, replace, require

_WRITES = ("_add", "_upsert", "_update", "_delete")


def watch_writes(after: Callable[[int], None]) -> None:
    """Call `after` after each write, failed ones included, with the number of ids that it named.

    Raises:
        DoesNotFit: this chromadb writes differently; nothing was changed.
    """
    try:
        api: Any = importlib.import_module("chromadb.api.rust").RustBindingsAPI
    except (ImportError, AttributeError) as exc:
        raise DoesNotFit(f"this chromadb stores its index differently: {exc}") from exc
    for name in _WRITES:
        known = parameters(getattr(api, name, None))
        require("collection_id" in known and "ids" in known, f"chromadb's {name} is not what it was")
    for name in _WRITES:
        replace(_watched(getattr(api, name), after), name, api)


def _watched(stock: Any, after: Callable[[int], None]) -> Any:
    place = parameters(stock).index("ids") - 1  # without self

    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs.get("ids") if "ids" in kwargs else args[place] if len(args) > place else None
        try:
            return stock(self, *args, **kwargs)
        finally:
            after(len(ids) if isinstance(ids, (list, tuple)) else 0)

    write.__signature__ = inspect.signature(stock)  # type: ignore[attr-defined]  # for the next watcher
    return write
