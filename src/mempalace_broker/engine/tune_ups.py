"""What we change in a running mempalace, in memory only, and how each change proves that it fits.

Each tune-up looks at the very functions that it builds on; a mempalace whose functions look or behave otherwise
runs as it is, and the report says why. Nothing here changes what stands on disk or what a tool answers.
MEMPALACE_BROKER_TUNE=0 leaves all of them out.
"""

from __future__ import annotations

import inspect
import os
import tempfile
import time
import weakref
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .adapter import Mempalace

Undo = Callable[[], None]


class DoesNotFit(Exception):
    """This mempalace is not the one the tune-up was made for; the text says in what."""


class TuneUp:
    """One change to a running mempalace.

    Args:
        name: as `status` and `doctor` list it. what: what it does. why: what it is good for.
        apply: proves that it fits, changes the modules, returns how to undo that; raises DoesNotFit.
    """

    def __init__(self, name: str, what: str, why: str, apply: Callable[[Mempalace], Undo]) -> None:
        self.name = name
        self.what = what
        self.why = why
        self.apply = apply


def fits(condition: bool, otherwise: str) -> None:
    """Raise DoesNotFit with `otherwise` unless `condition`."""
    if not condition:
        raise DoesNotFit(otherwise)


def parameters(function: Any) -> list[str]:
    """Names of a function's parameters; empty where it has no signature."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def replace(new: Any, *places: tuple[Any, str]) -> Undo:
    """Put `new` into each (object, attribute); return how to put the old values back."""
    old = [(owner, name, getattr(owner, name)) for owner, name in places]
    for owner, name in places:
        setattr(owner, name, new)

    def undo() -> None:
        for owner, name, value in old:
            setattr(owner, name, value)

    return undo


# -- upstream #1710: after a delete the next open renames the healthy index away ---------------------


def _judge_deleted(function: Any, total: int) -> Any:
    """What a recoverability check says to a sound index of one entry after `total` additions."""
    with tempfile.TemporaryDirectory(prefix="mempalace-broker-") as folder:
        for name, size in (("data_level0.bin", 4096), ("link_lists.bin", 4096)):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(bytes(size))
        return function({"total_elements_added": total, "label_to_id": {1: "a"}}, {"a": 1}, folder)


def deletes_destroy_index(mempalace: Mempalace) -> bool:
    """Does this mempalace have bug #1710 (as it is now, tuned or not)?"""
    check: Any = getattr(mempalace.module("backends.chroma"), "_missing_dimensionality_appears_recoverable", None)
    if check is None:
        return False  # rewritten since the fix of June 2026; 3.4.0 has it
    if parameters(check) != ["persisted", "id_to_label", "seg_dir"]:
        return False
    return _judge_deleted(check, 1) is True and _judge_deleted(check, 2) is not True


def _apply_delete_fix(mempalace: Mempalace) -> Undo:
    fits(deletes_destroy_index(mempalace), "not needed: this version has the upstream fix")
    chroma = mempalace.module("backends.chroma")
    stock, value = chroma._missing_dimensionality_appears_recoverable, chroma._persisted_metadata_value

    def recoverable(persisted: object, id_to_label: Any, seg_dir: str) -> bool:
        """The counter of additions never falls, so after a delete it is above the number of labels."""
        total = value(persisted, "total_elements_added")
        if isinstance(total, int) and not isinstance(total, bool) and total > len(id_to_label):
            persisted = {
                "total_elements_added": len(id_to_label),
                "label_to_id": value(persisted, "label_to_id"),
            }
        return bool(stock(persisted, id_to_label, seg_dir))

    undo = replace(recoverable, (chroma, "_missing_dimensionality_appears_recoverable"))
    if deletes_destroy_index(mempalace):
        undo()
        raise DoesNotFit("the check still misjudges an index after a delete")
    return undo


# -- a read must not write: pin the thread count of a collection once ---------------------------------


def _apply_pin_once(mempalace: Mempalace) -> Undo:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    stock: Any = getattr(chroma, "_pin_hnsw_threads", None)
    fits(parameters(stock) == ["collection"], "_pin_hnsw_threads is not what it was")
    fits(getattr(server, "_pin_hnsw_threads", stock) is stock, "the server has another _pin_hnsw_threads")
    pinned: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()

    def pin_once(collection: Any) -> None:
        """Pin per open client: the setting lives in memory, a reopened client needs it again."""
        try:
            done = pinned.setdefault(collection._client, set())
            key = str(collection.id)
        except (AttributeError, TypeError):  # not the collection that we know: as upstream does
            stock(collection)
            return
        if key not in done:
            stock(collection)
            done.add(key)

    return replace(pin_once, (chroma, "_pin_hnsw_threads"), (server, "_pin_hnsw_threads"))


# -- 3.4.0: the owner's own writes must not make it reopen the client ----------------------------------


def _apply_restamp(mempalace: Mempalace) -> Undo:
    server, chroma = mempalace.server, mempalace.module("backends.chroma")
    fits(not hasattr(server, "_restamp_palace_db"), "not needed: this version does it itself")
    for name in ("_client_cache", "_palace_db_inode", "_palace_db_mtime", "_metadata_cache"):
        fits(hasattr(server, name), f"the server has no {name}")
    fits(hasattr(chroma.ChromaBackend, "_db_stat"), "the backend keeps its freshness otherwise")
    get_backend: Any = getattr(mempalace.module("palace"), "get_backend_for_palace", None)
    fits(parameters(get_backend)[:1] == ["palace_path"], "get_backend_for_palace is not what it was")
    path = mempalace.palace_path()

    def restamp() -> None:
        """Take the file as our last call left it for unchanged; any other change is still seen."""
        try:
            found = os.stat(os.path.join(path, "chroma.sqlite3"))
        except OSError:
            return
        if server._client_cache is not None and server._palace_db_mtime != found.st_mtime:
            server._palace_db_inode, server._palace_db_mtime = found.st_ino, found.st_mtime
            server._metadata_cache = None  # as the reopening would have done
        if server._is_chroma_backend():
            freshness = getattr(get_backend(path), "_freshness", {})
            if path in freshness:
                freshness[path] = (found.st_ino, found.st_mtime)

    mempalace.after_call.append(restamp)
    return lambda: mempalace.after_call.remove(restamp)


# -- 3.4.0: the capacity probe reads the whole index file on every search ------------------------------

_RACY_NS = 50_000_000  # a file changed this recently may change again without its time stamp showing it


def _stamp(paths: list[str]) -> list[tuple[int, int, int] | None]:
    return [_stamp_one(path) for path in paths]


def _stamp_one(path: str) -> tuple[int, int, int] | None:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return st.st_ino, st.st_mtime_ns, st.st_size


def _is_settled(stamp: list[tuple[int, int, int] | None], now_ns: int) -> bool:
    return all(one is None or one[1] < now_ns - _RACY_NS for one in stamp)


def _apply_capacity_cache(mempalace: Mempalace) -> Undo:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    fits(not hasattr(chroma, "_capacity_cache"), "not needed: this version caches it itself")
    stock: Any = getattr(chroma, "hnsw_capacity_status", None)
    fits(parameters(stock) == ["palace_path", "collection_name"], "hnsw_capacity_status is not what it was")
    fits(getattr(server, "hnsw_capacity_status", None) is stock, "the server has another capacity probe")
    known: dict[tuple[str, str], tuple[Any, list[str], dict[str, Any]]] = {}

    def probe(palace_path: str, collection_name: str = "mempalace_drawers") -> dict[str, Any]:
        """Answer from memory while every file that the probe reads is unchanged."""
        key = (palace_path, collection_name)
        if key in known:
            stamp, paths, status = known[key]
            if _stamp(paths) == stamp:
                return dict(status)
        database = os.path.join(palace_path, "chroma.sqlite3")
        before = _stamp([database, database + "-wal"])
        status = stock(palace_path, collection_name)
        segment = status.get("segment_id")
        known.pop(key, None)
        if segment and status.get("sqlite_count") is not None:
            paths = [database, database + "-wal", os.path.join(palace_path, segment, "index_metadata.pickle")]
            stamp = _stamp(paths)
            if stamp[:2] == before and _is_settled(stamp, time.time_ns()):
                known[key] = (stamp, paths, dict(status))
        return dict(status)

    return replace(probe, (chroma, "hnsw_capacity_status"), (server, "hnsw_capacity_status"))


# -- 3.4.0: status, which agents are told to call first, reads the metadata of every drawer ------------

_MOST_ROWS = 50_000


def _apply_overview_cache(mempalace: Mempalace) -> Undo:
    server = mempalace.server
    fits(not hasattr(server, "_invalidate_overview_caches"), "not needed: this version keeps an overview itself")
    stock: Any = getattr(server, "_get_cached_metadata", None)
    fits(parameters(stock) == ["col", "where"], "_get_cached_metadata is not what it was")
    fits(hasattr(server, "_metadata_cache"), "the server has no _metadata_cache")
    known: dict[tuple[str, str], tuple[Any, list[Any]]] = {}

    def metadata(col: Any, where: Any = None) -> Any:
        """Answer from memory while the database is unchanged."""
        if where is not None:
            return stock(col, where)
        palace = str(server._config.palace_path)
        key = (palace, str(server._config.collection_name))
        paths = [os.path.join(palace, "chroma.sqlite3"), os.path.join(palace, "chroma.sqlite3-wal")]
        before = _stamp(paths)
        if key in known and known[key][0] == before:
            return known[key][1]
        server._metadata_cache = None  # upstream's is good for five seconds, changed or not
        rows = stock(col)
        known.clear()
        settled = before[0] is not None and _stamp(paths) == before and _is_settled(before, time.time_ns())
        if settled and len(rows) <= _MOST_ROWS:
            known[key] = (before, rows)
        return rows

    return replace(metadata, (server, "_get_cached_metadata"))


DELETE_FIX = "delete-fix"

BEFORE_OPENING = (
    TuneUp(
        DELETE_FIX,
        "an index is judged sound after deletes",
        "upstream #1710: else the next open renames the healthy index away",
        _apply_delete_fix,
    ),
    TuneUp(
        "pin-once",
        "a collection's thread count is pinned once per open client",
        "upstream writes it to the database on every search",
        _apply_pin_once,
    ),
    TuneUp(
        "own-writes",
        "the database as our own last call left it is not taken for changed",
        "upstream reopens client and index on almost every call",
        _apply_restamp,
    ),
    TuneUp(
        "capacity-cache",
        "the index capacity is read again only after its files changed",
        "upstream reads the whole index file on every search",
        _apply_capacity_cache,
    ),
    TuneUp(
        "overview-cache",
        "the drawers' wings and rooms are read again only after the database changed",
        "upstream reads the metadata of every drawer on every status",
        _apply_overview_cache,
    ),
)
