"""Tune-ups that keep a call from reading or writing again what has not changed."""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from .chroma_writes import watch_writes
from .file_cache import FileCache, database_files, stamps_of
from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace
    from .chroma_writes import Write


# -- a read must not write: pin the thread count of a collection once ---------------------------------


def _apply_pin_once(mempalace: Mempalace) -> None:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    stock: Any = getattr(chroma, "_pin_hnsw_threads", None)
    require(parameters(stock) == ["collection"], "_pin_hnsw_threads is not what it was")
    require(getattr(server, "_pin_hnsw_threads", stock) is stock, "the server has another _pin_hnsw_threads")
    pinned: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()

    def pin_once(collection: Any) -> None:
        """Pin once per open client: the setting lives in memory, so a reopened client needs it again."""
        try:
            done = pinned.setdefault(collection._client, set())
            key = str(collection.id)
        except (AttributeError, TypeError):  # another kind of collection: do as upstream
            stock(collection)
            return
        if key not in done:
            stock(collection)
            done.add(key)

    replace(pin_once, "_pin_hnsw_threads", chroma, server)


# -- 3.4.0: the owner's own writes must not make it reopen the client ----------------------------------


def _apply_own_writes(mempalace: Mempalace) -> None:
    server, chroma = mempalace.server, mempalace.module("backends.chroma")
    require(not hasattr(server, "_restamp_palace_db"), "not needed: this version does it itself")
    for name in ("_client_cache", "_palace_db_inode", "_palace_db_mtime", "_metadata_cache"):
        require(hasattr(server, name), f"the server has no {name}")
    require(hasattr(chroma.ChromaBackend, "_db_stat"), "the backend keeps its freshness otherwise")
    get_backend: Any = getattr(mempalace.module("palace"), "get_backend_for_palace", None)
    require(parameters(get_backend)[:1] == ["palace_path"], "get_backend_for_palace is not what it was")
    path = mempalace.palace_path()
    outdated: list[Any] = []  # the open client, once rows were deleted through it

    def note(write: Write) -> None:
        if write.deletes:
            outdated[:] = [server._client_cache]

    def restamp() -> None:
        """Mark the file as unchanged as our last call left it; any later change is still seen.

        Not between a delete and the next time that mempalace opens the client: until then, searches with the open one
        find rows that are gone and miss others.
        """
        if outdated and outdated[0] is server._client_cache:
            return
        outdated.clear()
        try:
            found = os.stat(os.path.join(path, "chroma.sqlite3"))
        except OSError:
            return
        if server._client_cache is not None and server._palace_db_mtime != found.st_mtime:
            server._palace_db_inode, server._palace_db_mtime = found.st_ino, found.st_mtime
            server._metadata_cache = None  # as reopening would have done
        if server._is_chroma_backend():
            freshness = getattr(get_backend(path), "_freshness", {})
            if path in freshness:
                freshness[path] = (found.st_ino, found.st_mtime)

    watch_writes(note)
    mempalace.after_call.append(restamp)
    mempalace.before_close.append(outdated.clear)


# -- 3.4.0: status, which agents are told to call first, reads the metadata of every drawer ------------

_MOST_ROWS = 50_000


def _apply_overview_cache(mempalace: Mempalace) -> None:
    server = mempalace.server
    require(not hasattr(server, "_invalidate_overview_caches"), "not needed: this version keeps an overview itself")
    stock: Any = getattr(server, "_get_cached_metadata", None)
    require(parameters(stock) == ["col", "where"], "_get_cached_metadata is not what it was")
    require(hasattr(server, "_metadata_cache"), "the server has no _metadata_cache")
    cache = FileCache()

    def metadata(col: Any, where: Any = None) -> Any:
        """Answer from memory while the database is unchanged."""
        if where is not None:
            return stock(col, where)
        palace = str(server._config.palace_path)
        key = palace, str(server._config.collection_name)
        rows = cache.get(key)
        if rows is None:
            before = stamps_of(database_files(palace))
            server._metadata_cache = None  # upstream's is good for five seconds, changed or not
            rows = stock(col)
            if before[0] is not None and len(rows) <= _MOST_ROWS:
                cache.put(key, rows, database_files(palace), before)
        return rows

    replace(metadata, "_get_cached_metadata", server)


# -- before each write, 3.11 looks for another version of itself in all folders of sys.path ------------

_SETTLED_NS = 2_000_000_000  # some file systems count in seconds


def _apply_installed_cache(mempalace: Mempalace) -> None:
    server = mempalace.server
    stock: Any = getattr(server, "_watched_metadata_files", None)
    require(parameters(stock) == ["root"], "not needed: this version does not look for another one")
    require(isinstance(getattr(server, "_STALE_LIBRARY_WATCHED_DISTS", None), tuple), "it looks in another way")
    known: dict[str, tuple[Any, list[str]]] = {}

    def files(root: str) -> list[str]:
        """Answer from memory while the folder is unchanged; whether the files are, upstream sees to on every call."""
        watched, before = server._STALE_LIBRARY_WATCHED_DISTS, _folder_stamp(root)
        state, found = known.get(root, (None, []))
        if before is not None and state == (watched, before):
            return list(found)
        found = stock(root)
        settled = before is not None and max(before[2:]) < time.time_ns() - _SETTLED_NS
        if settled and before == _folder_stamp(root) and (found or _has_none(root, watched)):
            known[root] = (watched, before), list(found)
        return list(found)

    replace(files, "_watched_metadata_files", server)


def _folder_stamp(path: str) -> tuple[int, ...] | None:
    """Device, inode, and the times in ns at which entries and permissions changed last; None where it is missing."""
    try:
        st = os.stat(path)
    except OSError:
        return None
    return st.st_dev, st.st_ino, st.st_mtime_ns, st.st_ctime_ns


def _has_none(root: str, watched: tuple[str, ...]) -> bool:
    """Whether the folder has nothing of these distributions. Upstream also finds nothing where it can't be read."""
    try:
        return not any(name.lower().startswith(watched) for name in os.listdir(root))
    except OSError:
        return False


PIN_ONCE = TuneUp(
    "pin-once",
    "a collection's thread count is pinned once per open client",
    "upstream writes it to the database on every search",
    _apply_pin_once,
)
OWN_WRITES = TuneUp(
    "own-writes",
    "the database as our own last call left it is not taken for changed",
    "upstream reopens client and index on almost every call",
    _apply_own_writes,
)
OVERVIEW_CACHE = TuneUp(
    "overview-cache",
    "the drawers' wings and rooms are read again only after the database changed",
    "upstream reads the metadata of every drawer on every status",
    _apply_overview_cache,
)
INSTALLED_CACHE = TuneUp(
    "installed-cache",
    "the folders of Python's packages are listed again only after they changed",
    "upstream lists all of them before each write",
    _apply_installed_cache,
    any_backend=True,
)
