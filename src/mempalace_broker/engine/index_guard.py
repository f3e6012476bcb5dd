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
import json
import os
import pickle
import shutil
import sqlite3
import struct
from typing import Any, Callable

META = "index_metadata.pickle"
FILES = (
    "header.bin",
    "data_level0.bin",
    "length.bin",
    "link_lists.bin",
    META,
)  # in the order of writing
_COMPLETE = "complete.json"
_UUID_CHARS = 36
_HEADER = struct.Struct("<iQQQ")  # of hnswlib: version, offset of level 0, capacity, number of elements
_UPDATE, _DELETE = 1, 3  # operations in embeddings_queue; 0 add, 2 upsert

Stamps = list[tuple[int, int]]  # (modification time in ns, size) of each of FILES


class Torn(Exception):
    """The index was not stored completely; the text says why."""


class UnknownFormat(Exception):
    """The index has a format that we don't know: it is left alone."""


class _PlainUnpickler(pickle.Unpickler):
    """Reads the metadata, which consists of plain values; refuses anything else instead of running it."""

    def find_class(self, module: str, name: str) -> Any:
        raise UnknownFormat(f"{module}.{name} in {META}")


def read_ids(folder: str) -> set[str]:
    """The ids in a stored index.

    Raises:
        Torn: it was not stored completely.
        UnknownFormat: it has another format.
        OSError: it can't be read.
    """
    try:
        with open(os.path.join(folder, META), "rb") as file:
            meta = _PlainUnpickler(file).load()
        labels, total = meta["id_to_label"], meta["total_elements_added"]
        ids = set(labels)
    except (OSError, UnknownFormat):
        raise
    except Exception as exc:  # half a pickle can raise anything
        raise Torn(f"{META}: {type(exc).__name__}: {exc}") from exc
    with open(os.path.join(folder, "header.bin"), "rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise Torn("header.bin is too short")
    version, _, _, count = _HEADER.unpack(head)
    if version == 1 and count != total:
        raise Torn(f"header.bin counts {count} elements, {META} {total}")
    return ids


def segments(palace: str) -> list[str]:
    """Names of the stored indexes of a palace."""
    try:
        names = os.listdir(palace)
    except OSError:
        return []
    uuids = (name for name in names if len(name) == _UUID_CHARS and name.count("-") == 4)
    return sorted(name for name in uuids if os.path.isfile(os.path.join(palace, name, META)))


class IndexGuard:
    """Guards the indexes of one palace.

    Args:
        palace: the palace directory.
        copies: directory for the copies; created when needed.
        log: takes a line for the log.
    """

    def __init__(self, palace: str, copies: str, log: Callable[[str], None]) -> None:
        self._palace = palace
        self._copies = copies
        self._log = log
        self._handled: dict[str, tuple[int, int]] = {}  # index -> stamp of the metadata last copied or tried

    # -- before the palace is opened ---------------------------------------------------------------

    def repair(self) -> list[dict[str, str]]:
        """Put copies back where an index is torn, and copy each sound index.

        Returns:
            {"what", "hint"} of each index that could not be repaired.
        """
        warnings = []
        for name in segments(self._palace):
            folder = os.path.join(self._palace, name)
            try:
                read_ids(folder)
                self._compare_with_copy(name)
            except Torn as exc:
                warning = self._restore(name, str(exc))
                if warning:
                    warnings.append({"what": warning, "hint": "mempalace repair"})
                    continue
            except (OSError, UnknownFormat) as exc:
                self._log(f"index {name} can't be checked: {exc}")
                continue
            self._copy_if_new(name)
        self._drop_copies_of_missing()
        return warnings

    def _compare_with_copy(self, name: str) -> None:
        """Raise Torn if files changed since the copy was made but the metadata did not: a write was cut short."""
        copy = self._newest_copy(name)
        then = _read_stamps(copy) if copy is not None else None
        now = _stamps(os.path.join(self._palace, name))
        if then is not None and then[-1] == now[-1] and then != now:
            raise Torn("its files are newer than its metadata")

    def _restore(self, name: str, why: str) -> str:
        """Put the copy back; return why that failed, or ""."""
        torn = f"the search index {name} was torn by a kill ({why})"
        copy = self._newest_copy(name)
        if copy is None:
            return f"{torn} and there is no copy of it"
        try:
            ids = read_ids(copy)
            if not self._matches_database(name, ids):
                return f"{torn} and its copy does not fit the database any more"
            folder = os.path.join(self._palace, name)
            with open(os.path.join(folder, META), "wb"):
                pass  # emptied first, put back last: killed in between, the index still counts as torn
            for file in FILES:
                part = os.path.join(folder, file + ".part")
                shutil.copyfile(os.path.join(copy, file), part)
                os.replace(part, os.path.join(folder, file))
        except (Torn, UnknownFormat, OSError, sqlite3.Error) as exc:
            return f"{torn} and its copy can't be put back: {exc}"
        self._log(f"{torn}; put back its last complete state of {len(ids)} entries, the database holds the rest")
        return ""

    def _matches_database(self, name: str, ids: set[str]) -> bool:
        """Whether the copy's ids and the queue since then give exactly the ids of the database.

        Call it only while this process has the database open nowhere else: closing a second descriptor would drop
        SQLite's locks.
        """
        path = os.path.join(self._palace, "chroma.sqlite3")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            row = db.execute("SELECT collection FROM segments WHERE id = ?", (name,)).fetchone()
            return row is not None and _replay_queue(db, name, row[0], ids) == _live_ids(db, row[0])

    # -- while it is open --------------------------------------------------------------------------

    def after_write(self) -> None:
        """Copy every index that was stored since the last call; costs one stat for each that was not."""
        for name in segments(self._palace):
            self._copy_if_new(name)

    def _copy_if_new(self, name: str) -> None:
        folder = os.path.join(self._palace, name)
        try:
            meta = _stamp(folder, META)
            if self._handled.get(name) == meta:
                return
            self._handled[name] = meta  # even if copying fails: try again when it is stored again
            stamps = _stamps(folder)
            newest = self._newest_copy(name)
            if newest is None or _read_stamps(newest) != stamps:
                self._copy(name, stamps)
        except OSError as exc:
            self._drop_copies(name, keep=None)  # an outdated copy would be worse than none
            self._log(f"index {name} could not be copied aside: {exc}")

    def _copy(self, name: str, stamps: Stamps) -> None:
        target = os.path.join(self._copies, f"{name}.{stamps[-1][0]}")
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target, 0o700)
        for file in FILES:
            shutil.copyfile(os.path.join(self._palace, name, file), os.path.join(target, file))
        temp = os.path.join(target, _COMPLETE + ".part")
        with open(temp, "w", encoding="ascii") as out:
            json.dump(stamps, out)
        os.replace(temp, os.path.join(target, _COMPLETE))
        self._drop_copies(name, keep=target)

    # -- copies ------------------------------------------------------------------------------------

    def _copies_of(self, name: str) -> list[str]:
        try:
            found = [n for n in os.listdir(self._copies) if n.startswith(name + ".")]
        except OSError:
            return []
        return [os.path.join(self._copies, n) for n in found]

    def _newest_copy(self, name: str) -> str | None:
        complete = [(stamps[-1], path) for path in self._copies_of(name) if (stamps := _read_stamps(path)) is not None]
        return max(complete)[1] if complete else None

    def _drop_copies(self, name: str, keep: str | None) -> None:
        for path in self._copies_of(name):
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)

    def _drop_copies_of_missing(self) -> None:
        """Remove copies of indexes that the palace no longer has."""
        try:
            copied = {entry[:_UUID_CHARS] for entry in os.listdir(self._copies)}
        except OSError:
            return
        for name in copied:
            if not os.path.isdir(os.path.join(self._palace, name)):
                self._drop_copies(name, keep=None)


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


def _stamp(folder: str, file: str) -> tuple[int, int]:
    """Modification time in ns and size of a file."""
    found = os.stat(os.path.join(folder, file))
    return found.st_mtime_ns, found.st_size


def _stamps(folder: str) -> Stamps:
    """Stamps of all files of an index; the last is that of the metadata, which is written last."""
    return [_stamp(folder, file) for file in FILES]


def _read_stamps(copy: str) -> Stamps | None:
    """Stamps of the index when it was copied; None if the copy is not complete."""
    try:
        with open(os.path.join(copy, _COMPLETE), encoding="ascii") as file:
            found = [(int(time_ns), int(size)) for time_ns, size in json.load(file)]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == len(FILES) else None
