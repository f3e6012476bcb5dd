"""Preserves the vector index through a kill while it is being written.

Chroma writes an index in place: header.bin, data_level0.bin, length.bin, link_lists.bin, and last
index_metadata.pickle, truncated first (seen with strace, chromadb 1.5.9). A process killed in between leaves an index
that does not open, or one without its elements, and mempalace 3.4.0 then answers every write with "Error in
compaction". The database's queue still holds every write since the last complete index. So a copy of that index, put
back, is whole again once Chroma has replayed the queue.

    after each write that made Chroma store the index    copy the index aside
    before the palace is opened                          check the index; put the copy back if it is torn

The copy is put back only if its ids and the queue give exactly the ids of the database.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
from typing import Any, Callable
from urllib.parse import quote

from ..system.shared_files import SharedFolder, copy_bytes
from .index_metadata import META, Torn, UnknownFormat, read_ids

FILES = (
    "header.bin",
    "data_level0.bin",
    "length.bin",
    "link_lists.bin",
    META,
)  # in the order of writing
_DATABASE = "chroma.sqlite3"
_COMPLETE = "complete.json"
_COMPLETE_LIMIT = 4096
_UUID_CHARS = 36
_MOST = 2**63
_UPDATE, _DELETE = 1, 3  # operations in embeddings_queue; 0 add, 2 upsert

Stamps = list[tuple[int, int]]  # (modification time in ns, size) of each of FILES


def segments(palace: SharedFolder) -> list[str]:
    """Names of the stored indexes of a palace. Raises OSError."""
    uuids = (name for name in palace.names() if len(name) == _UUID_CHARS and name.count("-") == 4)
    return sorted(name for name in uuids if _has_metadata(palace, name))


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

    # -- before the palace is opened ---------------------------------------------------------------

    def repair(self) -> list[dict[str, str]]:
        """Put copies back where an index is torn, and copy each sound index.

        Returns:
            {"what", "hint"} of each index that could not be repaired.
        """
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
                if _unchanged(index, self._sound.get(name)):
                    return ""
                read_ids(index)
                _compare_with_copy(index, copies, name)
                self._sound[name] = _stamps(index)
        except Torn as exc:
            warning = self._restore(palace, copies, name, str(exc))
            if warning:
                return warning
        except (OSError, UnknownFormat) as exc:
            self._log(f"index {name} can't be checked: {exc}")
            return ""
        self._copy_if_new(palace, copies, name)
        return ""

    def _restore(self, palace: SharedFolder, copies: SharedFolder, name: str, why: str) -> str:
        """Put the copy back; return why that failed, or ""."""
        torn = f"the search index {name} was torn by a kill ({why})"
        newest = _newest_copy(copies, name)
        if newest is None:
            return f"{torn} and there is no copy of it"
        try:
            with copies.folder(newest) as copy, palace.folder(name) as index:
                ids = read_ids(copy)
                if not self._matches_database(palace, name, ids):
                    return f"{torn} and its copy does not fit the database any more"
                index.replace(META, b"")  # first, and put back last: killed in between, the index still counts as torn
                for file in FILES:
                    part = file + ".part"
                    index.remove(part)
                    _copy_file(copy, file, index, part)
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
        path = quote(os.path.join(self._palace, _DATABASE))
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            row = db.execute("SELECT collection FROM segments WHERE id = ?", (name,)).fetchone()
            return row is not None and _replay_queue(db, name, row[0], ids) == _live_ids(db, row[0])

    # -- while it is open --------------------------------------------------------------------------

    def after_write(self) -> None:
        """Copy every index that was stored since the last call; costs one stat for each that was not."""
        try:
            with SharedFolder.open(self._palace) as palace:
                stored = [name for name in segments(palace) if self._handled.get(name) != _stamp_of(palace, name)]
                if stored:
                    with self._open_copies() as copies:
                        for name in stored:
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
                meta = _stamp(index, META)
                if self._handled.get(name) == meta:
                    return
                self._handled[name] = meta  # even if copying fails: try again when it is stored again
                stamps = _stamps(index)
                newest = _newest_copy(copies, name)
                if newest is None or _read_stamps(copies, newest) != stamps:
                    _copy(index, copies, name, stamps)
        except OSError as exc:
            _drop_copies(copies, name, keep=None)  # an outdated copy would be worse than none
            self._log(f"index {name} could not be copied aside: {exc}")

    def _drop_copies_of_missing(self, palace: SharedFolder, copies: SharedFolder) -> None:
        """Remove copies of indexes that the palace no longer has."""
        for name in {entry[:_UUID_CHARS] for entry in copies.names()}:
            found = palace.look(name)
            if found is None or not stat.S_ISDIR(found.st_mode):
                _drop_copies(copies, name, keep=None)


# -- copies --------------------------------------------------------------------------------------------


def _copy(index: SharedFolder, copies: SharedFolder, name: str, stamps: Stamps) -> None:
    target = f"{name}.{stamps[-1][0]}"
    room = os.fstatvfs(copies.fd)
    if sum(size for _, size in stamps) > room.f_bavail * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), copies.path)  # a file may claim any size
    copies.remove_tree(target)
    with copies.folder(target, make=True) as copy:
        for file in FILES:
            _copy_file(index, file, copy, file)
        copy.replace(_COMPLETE, json.dumps(stamps).encode("ascii"))
    _drop_copies(copies, name, keep=target)


def _copy_file(source: SharedFolder, name: str, target: SharedFolder, new: str) -> None:
    """Copy a file to a name that is free. Raises OSError."""
    with contextlib.ExitStack() as stack:
        reading = source.open_read(name)
        stack.callback(os.close, reading)
        writing = target.open_new(new)
        stack.callback(os.close, writing)
        copy_bytes(reading, writing)


def _compare_with_copy(index: SharedFolder, copies: SharedFolder, name: str) -> None:
    """Raise Torn if files changed since the copy was made but the metadata did not: a write was cut short."""
    newest = _newest_copy(copies, name)
    then = _read_stamps(copies, newest) if newest is not None else None
    now = _stamps(index)
    if then is not None and then[-1] == now[-1] and then != now:
        raise Torn("its files are newer than its metadata")


def _newest_copy(copies: SharedFolder, name: str) -> str | None:
    """The folder of the newest complete copy of an index. Raises OSError."""
    complete = [
        (stamps[-1], copy) for copy in _copies_of(copies, name) if (stamps := _read_stamps(copies, copy)) is not None
    ]
    return max(complete)[1] if complete else None


def _copies_of(copies: SharedFolder, name: str) -> list[str]:
    return [entry for entry in copies.names() if entry.startswith(name + ".")]


def _drop_copies(copies: SharedFolder, name: str, keep: str | None) -> None:
    for copy in _copies_of(copies, name):
        if copy != keep:
            with contextlib.suppress(OSError):  # the next copy of this index tries again
                copies.remove_tree(copy)


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


# -- stamps --------------------------------------------------------------------------------------------


def _stamp_of(palace: SharedFolder, name: str) -> tuple[int, int]:
    with palace.folder(name) as index:
        return _stamp(index, META)


def _stamp(index: SharedFolder, file: str) -> tuple[int, int]:
    """Modification time in ns and size of a file. Raises OSError."""
    found = index.look(file)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.join(index.path, file))
    return found.st_mtime_ns, found.st_size


def _stamps(index: SharedFolder) -> Stamps:
    """Stamps of all files of an index; the last is that of the metadata, which is written last. Raises OSError."""
    return [_stamp(index, file) for file in FILES]


def _unchanged(index: SharedFolder, then: Stamps | None) -> bool:
    try:
        return then is not None and _stamps(index) == then
    except OSError:
        return False


def _read_stamps(copies: SharedFolder, copy: str) -> Stamps | None:
    """Stamps of the index when it was copied; None if the copy is not complete."""
    try:
        with copies.folder(copy) as folder:
            return parse_stamps(folder.read(_COMPLETE, _COMPLETE_LIMIT) or b"")
    except OSError:
        return None


def parse_stamps(data: bytes) -> Stamps | None:
    """Read the stamps in complete.json from any bytes; None if they are not such stamps."""
    try:
        found = json.loads(data) if len(data) <= _COMPLETE_LIMIT else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != len(FILES):
        return None
    if not all(isinstance(stamp, list) and len(stamp) == 2 and all(map(_is_whole, stamp)) for stamp in found):
        return None
    return [(stamp[0], stamp[1]) for stamp in found]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_MOST <= value < _MOST
