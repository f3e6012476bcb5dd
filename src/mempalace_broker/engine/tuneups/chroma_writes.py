"""Tells who asks of each write that this process makes through Chroma."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Callable, NamedTuple

from .tuneup import DoesNotFit, parameters, replace, require

_WRITES = ("_add", "_upsert", "_update", "_delete")


class Write(NamedTuple):
    """One write.

    Attributes:
        collection: the id of its collection.
        ids: those that it names; None for a delete by another condition.
        deletes: whether it deletes rows.
    """

    collection: str
    ids: list[str] | None
    deletes: bool = False

    @property
    def rows(self) -> int:
        """The number of ids that it names."""
        return len(self.ids or ())


def watch_writes(after: Callable[[Write], None], before: Callable[[Write], None] | None = None) -> None:
    """Call `before` and `after` with each write, failed ones included.

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
        replace(_watched(getattr(api, name), after, before, deletes=name == "_delete"), name, api)


def _watched(
    stock: Any, after: Callable[[Write], None], before: Callable[[Write], None] | None, *, deletes: bool
) -> Any:
    names = parameters(stock)[1:]  # without self

    def write(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args)), **kwargs}
        ids = given.get("ids")
        named = list(ids) if isinstance(ids, (list, tuple)) else None
        what = Write(str(given.get("collection_id")), named, deletes)
        if before is not None:
            before(what)
        try:
            return stock(self, *args, **kwargs)
        finally:
            after(what)

    write.__signature__ = inspect.signature(stock)  # type: ignore[attr-defined]  # for the next watcher
    return write
