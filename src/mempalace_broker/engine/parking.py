"""Closes the palace while modules and model stay loaded.

Closed means: no descriptor of this process leads to a file of the palace any more, and no answer of the time before is
left in memory. mempalace has no function for that, and its parts differ between versions, so each part is closed where
it is there; what counts is the look at the descriptors afterwards.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import time
from typing import Any, Callable

from ..protocol.write_lock import lock_name
from ..system import kernel
from .adapter import Mempalace
from .empty_palace import BROKER_FILES
from .shared_opens import path_of

_POLL_S = 0.05
_CLOSING_S = 2.0  # the last descriptors may be closed by threads of Chroma's
_SHOWN = 3

# what the server remembers of the open palace -> the value that makes it look again
_MEMORY = {
    **dict.fromkeys(("_client_cache", "_collection_cache", "_collection_cache_backend", "_collection_cache_palace")),
    **dict.fromkeys(("_collection_open_error", "_metadata_cache", "_vector_capacity_status")),
    **dict.fromkeys(("_palace_db_inode", "_metadata_cache_time"), 0),
    "_palace_db_mtime": 0.0,
    "_vector_disabled": False,
    "_vector_disabled_reason": "",
}
_STORES = (("_kg_by_path", "_kg_cache_lock"), ("_logstream_by_path", "_logstream_cache_lock"))
# (module, function without arguments): what else is to be forgotten; the last two hold SQLite connections
_FORGET = (
    ("mcp_server", "_invalidate_overview_caches"),
    ("palace_graph", "invalidate_graph_cache"),
    ("backends.chroma", "reset_hnsw_capacity_cache"),
    ("backends._magic", "close_retained"),
    ("backends._inproc_sqlite", "release_all"),
)

# how Chroma reports that its database failed: no room on the disk, an I/O error, a transaction that still waits
_FAILURES = (b"Error in compaction", b"request to compactor", b"error returned from database: (code: ")
_SHORT = 4096  # bytes of such an answer


def store_failed(answer: bytes) -> bool:
    """Whether this answer to a write says that Chroma's database failed.

    Chroma then leaves a transaction open, and its next write waits for that, long after the disk has room again.
    """
    return len(answer) < _SHORT and any(failure in answer for failure in _FAILURES)


def close_palace(mempalace: Mempalace) -> str:
    """Close the palace and give up the upstream write lock.

    Call it on the thread that took the lock, while no call is under way.

    Returns:
        Why that failed, else "". The lock is kept where a file is still open.
    """
    try:
        for step in mempalace.before_close:
            step()
        _close_backend(mempalace)
        _close_stores(mempalace.server)
        _forget(mempalace)
        if palace_files(mempalace):
            gc.collect()  # 3.4.0 leaves SQLite connections open that only each other refer to
        left = _open_after_a_while(lambda: palace_files(mempalace))
        if left:
            return f"still open: {', '.join(left[:_SHOWN])}"
        for step in mempalace.after_close:
            step()
        mempalace.give_up_write_lock()
        lock = lock_name(real_path(mempalace.palace_path()))
        return f"still open: {lock}" if any(path.endswith(lock) for path in _open_paths()) else ""
    except Exception as exc:  # noqa: BLE001 - an unknown mempalace may raise anything; this process is ended then
        return f"{type(exc).__name__}: {exc}"


def _close_backend(mempalace: Mempalace) -> None:
    server, path = mempalace.server, mempalace.palace_path()
    backend = mempalace.module("palace").get_backend_for_palace(path)
    backend.close_palace(server.PalaceRef(id=path, local_path=path))
    close = getattr(getattr(server, "_client_cache", None), "close", None)
    if close is not None:
        close()
    for name, value in _MEMORY.items():
        if hasattr(server, name):
            setattr(server, name, value)
    if "chromadb" in sys.modules:
        _stop_chroma(mempalace, path)


def _stop_chroma(mempalace: Mempalace, path: str) -> None:
    """Stop what Chroma shares between clients: 3.4.0 drops clients without closing them, which keeps it running."""
    chroma: Any = mempalace.module("backends.chroma")
    shared: Any = importlib.import_module("chromadb.api.client").SharedSystemClient
    for system in list(shared._identifier_to_system.values()):
        system.stop()
    getattr(chroma, "_clear_chroma_system_cache", shared.clear_system_cache)()
    chroma.ChromaBackend._quarantined_paths.discard(path)  # the next open looks at the index again


def _close_stores(server: Any) -> None:
    for stores, lock in _STORES:
        known = getattr(server, stores, None)
        if known is not None:
            with getattr(server, lock, contextlib.nullcontext()):
                for store in known.values():
                    store.close()
                known.clear()


def _forget(mempalace: Mempalace) -> None:
    for module, name in _FORGET:
        function = getattr(mempalace.module(module), name, None)
        if function is not None:
            function()
    clear = getattr(mempalace.module("palace"), "clear_validated_embedder_identity", None)
    if clear is not None:
        clear(mempalace.palace_path())


# -- descriptors ---------------------------------------------------------------------------------------


def palace_files(mempalace: Mempalace) -> list[str]:
    """Files of the palace and its graph that this process has open; our own, such as the journal, don't count."""
    palace, graph = kernel.real_path(mempalace.palace_path()).rstrip("/") + "/", mempalace.graph_path()
    opened = set(_open_paths())
    theirs = {path for path in opened if path.startswith(palace) and not path[len(palace) :].startswith(BROKER_FILES)}
    elsewhere = {path for path in opened if graph is not None and path.startswith(kernel.real_path(graph))}
    return sorted(theirs | elsewhere)


def _open_paths() -> list[str]:
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            found.append(path_of(int(name)))
    return found


def _open_after_a_while(look: Callable[[], list[str]]) -> list[str]:
    end = time.monotonic() + _CLOSING_S
    while (left := look()) and time.monotonic() < end:
        time.sleep(_POLL_S)  # a descriptor that is closed sends no event
    return left


def real_path(path: str) -> str:
    """A path as mempalace keys its lock by it."""
    return os.path.normcase(os.path.realpath(os.path.expanduser(path)))
