"""Preserves the vector index through a kill while it is being written.

Chroma writes an index in place: header.bin, data_level0.bin, length.bin, link_lists.bin, and last
index_metadata.pickle, truncated first (seen with strace, chromadb 1.5.9). A process killed in between leaves an index
that does not open, or one without its elements, and mempalace 3.4.0 then answers every write with "Error in
compaction". The database's queue still holds every write since the last complete index. So a copy of that index, put
back, is whole again once Chroma has replayed the queue.

    after each write that made Chroma store the index    copy the index aside, on a thread of its own
    before the palace is opened                          check the index; put the copy back if it is torn

The copy is put back only if its ids and the queue give exactly the ids of the database. An index whose files are as
they were when it was copied is whole: it is not read again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from typing import Any, Callable

from ..system.palace_stores import UUID_CHARS, names_index
from ..system.shared_files import SharedFolder
from ..system.sqlite_files import uri_of
from .index_copies import (
    FILES,
    Stamps,
    compare_with_copy,
    copy_file,
    copy_index,
    drop_copies,
    newest_copy,
    stamp,
    stamp_of,
    stamps_of,
    unchanged,
)
from .index_metadata import META, Torn, UnknownFormat, read_ids

_DATABASE = "chroma.sqlite3"
_ROWS_WHILE_COPYING = 300  # Chroma stores the index every thousand; before that, the copy is waited for
_UPDATE, _DELETE = 1, 3  # operations in embeddings_queue; 0 add, 2 upsert


def segments(palace: SharedFolder) -> list[str]:
    """Names of the stored indexes of a palace. Raises OSError."""
    return sorted(name for name in filter(names_index, palace.names()) if _has_metadata(palace, name))


def _has_metadata(palace: SharedFolder, name: str) -> bool:
    try:
        with palace.folder(name) as index:
            return index.look(META) is not None
    except OSError:
        return False


class IndexGuard:
    """Guards the indexes of one palace.

    Args:
        palace: the palace directory.
        copies: directory for the copies, in a folder that exists; created when needed.
        log: takes a line for the log.

    Whoever reaches the palace and the copies can put anything there under any name: no link is followed, and nothing
    but a regular file of ours is read or written.
    """

    def __init__(self, palace: str, copies: str, log: Callable[[str], None]) -> None:
        self._palace = palace
        self._copies = copies
        self._log = log
        self._sound: dict[str, Stamps] = {}
        self._handled: dict[str, tuple[int, int]] = {}  # index -> stamp of the metadata last copied or tried
        self._stored: dict[str, tuple[int, int]] = {}  # index -> stamp of the metadata when it was seen last
        self._rows = 0  # written since an index was stored
        self._lock = threading.Lock()
        self._wanted: set[str] = set()  # indexes to copy
        self._copying: threading.Thread | None = None

    # -- before the palace is opened ---------------------------------------------------------------

    def repair(self) -> list[dict[str, str]]:
        """Put copies back where an index is torn, and copy each sound index.

        Returns:
            {"what", "hint"} of each index that could not be repaired.
        """
        self.settle()
        try:
            with SharedFolder.open(self._palace) as palace, self._open_copies() as copies:
                warnings = []
                for name in segments(palace):
                    warning = self._check(palace, copies, name)
                    if warning:
                        warnings.append({"what": warning, "hint": "mempalace repair"})
                self._drop_copies_of_missing(palace, copies)
                return warnings
        except FileNotFoundError:
            return []  # no palace yet
        except OSError as exc:
            self._log(f"the indexes can't be checked: {exc}")
            return []

    def _check(self, palace: SharedFolder, copies: SharedFolder, name: str) -> str:
        """Check one index, unless it is as it was found sound; return why it could not be repaired, or ""."""
        try:
            with palace.folder(name) as index:
                if unchanged(index, self._sound.get(name)):
                    return ""
                if self._is_as_copied(index, copies, name):
                    return ""
                read_ids(index)
                compare_with_copy(index, copies, name)
                self._sound[name] = stamps_of(index)
        except Torn as exc:
            warning = self._restore(palace, copies, name, str(exc))
            if warning:
                return warning
        except (OSError, UnknownFormat) as exc:
            self._log(f"index {name} can't be checked: {exc}")
            return ""
        self._begin_copying({name})
        return ""

    def _is_as_copied(self, index: SharedFolder, copies: SharedFolder, name: str) -> bool:
        newest = newest_copy(copies, name)
        if newest is None or not unchanged(index, newest.stamps):
            return False
        self._sound[name] = newest.stamps
        self._handled[name] = self._stored[name] = newest.stamps[-1]
        return True

    def _restore(self, palace: SharedFolder, copies: SharedFolder, name: str, why: str) -> str:
        """Put the copy back; return why that failed, or ""."""
        torn = f"the search index {name} was torn by a kill ({why})"
        newest = newest_copy(copies, name)
        if newest is None:
            return f"{torn} and there is no copy of it"
        try:
            with copies.folder(newest.folder) as copy, palace.folder(name) as index:
                ids = read_ids(copy)
                if not self._matches_database(palace, name, ids):
                    return f"{torn} and its copy does not fit the database any more"
                index.replace(META, b"")  # first, and put back last: killed in between, the index still counts as torn
                for file in FILES:
                    part = file + ".part"
                    index.remove(part)
                    copy_file(copy, file, index, part)
                    index.rename(part, file)
        except (Torn, UnknownFormat, OSError, sqlite3.Error, TypeError, ValueError) as exc:
            return f"{torn} and its copy can't be put back: {exc}"
        self._log(f"{torn}; put back its last complete state of {len(ids)} entries, the database holds the rest")
        return ""

    def _matches_database(self, palace: SharedFolder, name: str, ids: set[str]) -> bool:
        """Whether the copy's ids and the queue since then give exactly the ids of the database.

        Call it only while this process has the database open nowhere else: closing a second descriptor would drop
        SQLite's locks.
        """
        os.close(palace.open_read(_DATABASE))  # refuses a link, and what is not a regular file of ours
        uri = uri_of(os.path.join(self._palace, _DATABASE), "mode=ro")
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as db:
            row = db.execute("SELECT collection FROM segments WHERE id = ?", (name,)).fetchone()
            return row is not None and _replay_queue(db, name, row[0], ids) == _live_ids(db, row[0])

    # -- while it is open --------------------------------------------------------------------------

    def after_write(self, rows: int = 1) -> None:
        """Begin to copy every index that was stored since the last call; costs one stat for each that was not."""
        self._rows += rows
        try:
            with SharedFolder.open(self._palace) as palace:
                now = {name: stamp_of(palace, name) for name in segments(palace)}
        except OSError as exc:
            self._log(f"the indexes could not be copied aside: {exc}")
            return
        stored = {name for name, when in now.items() if when != self._stored.get(name)}
        if stored:
            self._stored, self._rows = now, 0
            self._begin_copying(stored)
        elif self._rows > _ROWS_WHILE_COPYING:
            self.settle()  # the next store must not change what is being copied

    def settle(self) -> None:
        """Return once nothing is being copied."""
        thread = self._copying
        if thread is not None:
            thread.join()

    def _begin_copying(self, names: set[str]) -> None:
        with self._lock:
            self._wanted |= names
            if self._copying is not None:
                return
            thread = threading.Thread(target=self._copy_while_wanted, name="engine-index", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # too many threads: the write itself is done, and must not fail by this
                self._log(f"the indexes could not be copied aside: {exc}")
            else:
                self._copying = thread

    def _copy_while_wanted(self) -> None:
        while True:
            with self._lock:
                names, self._wanted = self._wanted, set()
                if not names:
                    self._copying = None
                    return
            try:
                with SharedFolder.open(self._palace) as palace, self._open_copies() as copies:
                    for name in names:
                        self._copy_if_new(palace, copies, name)
            except OSError as exc:
                self._log(f"the indexes could not be copied aside: {exc}")

    def _open_copies(self) -> SharedFolder:
        """The folder of copies; in place of anything else that has its name. Raises OSError."""
        root, name = os.path.split(self._copies)
        with SharedFolder.open(root) as folder:
            found = folder.look(name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                folder.remove(name)
            return folder.folder(name, make=True)

    def _copy_if_new(self, palace: SharedFolder, copies: SharedFolder, name: str) -> None:
        try:
            with palace.folder(name) as index:
                meta = stamp(index, META)
                if self._handled.get(name) == meta:
                    return
                self._handled[name] = meta  # even if copying fails: try again when it is stored again
                stamps = stamps_of(index)
                newest = newest_copy(copies, name)
                if newest is None or newest.stamps != stamps:
                    copy_index(index, copies, name, stamps)
        except OSError as exc:
            drop_copies(copies, name, keep=None)  # an outdated copy would be worse than none
            self._log(f"index {name} could not be copied aside: {exc}")

    def _drop_copies_of_missing(self, palace: SharedFolder, copies: SharedFolder) -> None:
        """Remove copies of indexes that the palace no longer has."""
        for name in {entry[:UUID_CHARS] for entry in copies.names()}:
            found = palace.look(name)
            if found is None or not stat.S_ISDIR(found.st_mode):
                drop_copies(copies, name, keep=None)


# -- the database --------------------------------------------------------------------------------------


def _live_ids(db: sqlite3.Connection, collection: str) -> set[str]:
    query = "SELECT e.embedding_id FROM embeddings e JOIN segments s ON s.id = e.segment_id WHERE s.collection = ?"
    return {id_ for (id_,) in db.execute(query, (collection,))}


def _replay_queue(db: sqlite3.Connection, name: str, collection: str, ids: set[str]) -> set[str]:
    """The ids of an index after the queued writes that it has not stored yet."""
    stored = db.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (name,)).fetchone()
    tail = db.execute(
        "SELECT operation, id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id",
        (_number(stored[0]) if stored else 0, f"%{collection}"),
    )
    found = set(ids)
    for operation, id_ in tail:
        if operation == _DELETE:
            found.discard(id_)
        elif operation != _UPDATE:
            found.add(id_)
    return found


def _number(seq_id: Any) -> int:
    """A sequence number; Chroma 0.6 stored it as big-endian bytes."""
    return int.from_bytes(seq_id, "big") if isinstance(seq_id, bytes) else int(seq_id)
