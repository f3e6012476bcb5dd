"""mempalace compares the index with the database before each write, and before a search that follows one.

It counts the rows of the database and reads the metadata of the whole index for that: both as long as the palace. Here
it goes on from its last comparison as long as that must still hold: the index was not stored since, nobody else wrote,
and our own writes since then, had all of them added rows, would not have changed the verdict either.
"""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from .chroma_writes import watch_writes
from .file_cache import FileCache, database_files, stamps_of
from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace
    from .file_cache import Key, Stamp

_AHEAD = 512  # rows that may be added before the next comparison
_MOST_S = 60.0  # as upstream limits its own cache: a file system's time stamps may be coarse
_SETTLED = ("ok", "unknown")
_INDEX = ("index_metadata.pickle", "header.bin")


class _Known(NamedTuple):
    """A comparison: its result, and until when it holds."""

    status: dict[str, Any]
    stored: list[Stamp]
    database: list[Stamp]
    rows: int  # of ours when it was made
    ahead: int  # how many more may come
    at: float


class _Comparison:
    """Stands in for `hnsw_capacity_status` of one mempalace."""

    def __init__(self, chroma: Any) -> None:
        self._chroma = chroma
        self._stock = chroma.hnsw_capacity_status
        self._fresh = getattr(chroma, "_hnsw_capacity_status_uncached", self._stock)
        self._count = chroma._sqlite_embedding_count
        self._elements = chroma._hnsw_element_count
        self._of_index = FileCache()
        self._known: dict[Key, _Known] = {}
        self._rows = 0  # named by our writes
        self._left: dict[str, list[Stamp]] = {}  # palace -> its database as our last call left it
        self._writing = False  # in the running call
        self._assumed = threading.local()  # .count: rows that the database is taken to have

    def wrote(self, rows: int) -> None:
        """Hear of a write of ours."""
        self._rows += rows
        self._writing = True

    def forget(self) -> None:
        """Compare anew at the next call, whatever is known."""
        self._known.clear()
        self._left.clear()

    def call_ended(self, palace: str) -> None:
        """Take the database as this process leaves it for known."""
        if self._writing or palace not in self._left:
            self._left[palace] = stamps_of(database_files(palace))
        self._writing = False

    def status(self, palace_path: str, collection_name: str = "mempalace_drawers") -> dict[str, Any]:
        """As upstream; the counts in it may lack our own last writes while the verdict is a good one."""
        key = palace_path, collection_name
        known = self._known.get(key)
        if known is not None and self._holds(palace_path, known):
            return dict(known.status)
        before = stamps_of(database_files(palace_path))
        status = self._stock(palace_path, collection_name)
        self._known.pop(key, None)
        if status.get("status") in _SETTLED and status.get("segment_id") and status.get("sqlite_count") is not None:
            ahead = _AHEAD if self._settled_with(status, palace_path, collection_name) else 0
            stored = stamps_of(_index_files(palace_path, status))
            self._known[key] = _Known(dict(status), stored, before, self._rows, ahead, monotonic())
        return dict(status)

    def _holds(self, palace: str, known: _Known) -> bool:
        if stamps_of(_index_files(palace, known.status)) != known.stored or monotonic() - known.at > _MOST_S:
            return False
        database = stamps_of(database_files(palace))
        ours = database == known.database or self._writing or database == self._left.get(palace)
        return ours and self._rows - known.rows <= known.ahead

    def _settled_with(self, status: dict[str, Any], palace: str, collection: str) -> bool:
        """Whether the verdict would be the same, had the database so many more rows."""
        self._assumed.count = status["sqlite_count"] + _AHEAD
        try:
            later = self._fresh(palace, collection)
        finally:
            self._assumed.count = None
        same = ("status", "diverged", "flush_unreachable", "segment_id", "hnsw_count")
        return all(later.get(name) == status.get(name) for name in same)

    def count(self, palace_path: str, collection_name: str) -> Any:
        """Stand in for `_sqlite_embedding_count`."""
        assumed = getattr(self._assumed, "count", None)
        return self._count(palace_path, collection_name) if assumed is None else assumed

    def elements(self, palace_path: str, segment_id: str) -> Any:
        """Stand in for `_hnsw_element_count`: read again only after the index was stored."""
        key = palace_path, segment_id
        found = self._of_index.get(key)
        if found is None:
            path = os.path.join(palace_path, segment_id, _INDEX[0])
            before = stamps_of([path])
            found = self._elements(palace_path, segment_id)
            if found is not None:
                self._of_index.put(key, found, [path], before)
        return found


def _index_files(palace: str, status: dict[str, Any]) -> list[str]:
    return [os.path.join(palace, str(status["segment_id"]), name) for name in _INDEX]


def _apply(mempalace: Mempalace) -> None:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    stock: Any = getattr(chroma, "hnsw_capacity_status", None)
    require(parameters(stock) == ["palace_path", "collection_name"], "hnsw_capacity_status is not what it was")
    require(getattr(server, "hnsw_capacity_status", None) is stock, "the server has another capacity probe")
    for name, known in (
        ("_sqlite_embedding_count", ["palace_path", "collection_name"]),
        ("_hnsw_element_count", ["palace_path", "segment_id"]),
    ):
        require(parameters(getattr(chroma, name, None)) == known, f"{name} is not what it was")
    fresh = getattr(chroma, "_hnsw_capacity_status_uncached", stock)
    require(fresh is stock or parameters(fresh) == parameters(stock), "the probe behind the cache is not what it was")
    comparison = _Comparison(chroma)
    watch_writes(lambda write: comparison.wrote(write.rows))
    replace(comparison.status, "hnsw_capacity_status", chroma, server)
    replace(comparison.count, "_sqlite_embedding_count", chroma)
    replace(comparison.elements, "_hnsw_element_count", chroma)
    reset: Any = getattr(chroma, "reset_hnsw_capacity_cache", None)
    if reset is not None:

        def reset_both() -> None:
            comparison.forget()
            reset()

        replace(reset_both, "reset_hnsw_capacity_cache", chroma, server)
    mempalace.after_call.append(lambda: comparison.call_ended(mempalace.palace_path()))


CAPACITY_CACHE = TuneUp(
    "capacity-cache",
    "the index is compared with the database again only after one of them changed, except by our own writes",
    "upstream counts all rows and reads the whole index's metadata before each write",
    _apply,
)
