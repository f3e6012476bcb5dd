"""Keeps the vector index through a kill in the middle of its write.

Chroma writes an index in place: header.bin, data_level0.bin, length.bin, link_lists.bin, last index_metadata.pickle,
truncated first (seen with strace, chromadb 1.5.9). A process killed in between leaves an index that does not open, or
one without its elements, and mempalace 3.4.0 then answers every write with "Error in compaction". What was written
since the last complete index is still in the database's queue, so the last complete index, put back, is whole again
once Chroma has replayed the queue.

    after each write that made Chroma store the index    copy the index aside
    before the palace is opened                          check it; put the copy back where it is torn

The copy is put back only where it proves to be the right one: its ids and the queue must give the database's ids.
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
FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", META)  # in the order of their writing
_COMPLETE = "complete.json"
_UUID = 36
_HEADER = struct.Struct("<iQQQ")  # hnswlib: version, offset of level 0, capacity, number of elements
_UPDATE, _DELETE = 1, 3  # operations in embeddings_queue; 0 add, 2 upsert


Stamps = list[tuple[int, int]]  # see _stamps


class Torn(Exception):
    """The index is not one that was stored completely; the text says in what."""


class Unfamiliar(Exception):
    """The index is of a kind that we can't judge: left alone."""


class _Plain(pickle.Unpickler):
    """Reads the metadata, which is made of plain values; anything else is refused, not run."""

    def find_class(self, module: str, name: str) -> Any:
        raise Unfamiliar(f"{module}.{name} in {META}")


def read_ids(folder: str) -> set[str]:
    """The ids in a stored index.

    Raises:
        Torn: it was not stored completely.
        Unfamiliar: it is of another make.
        OSError: it can't be read.
    """
    try:
        with open(os.path.join(folder, META), "rb") as file:
            meta = _Plain(file).load()
        labels, total = meta["id_to_label"], meta["total_elements_added"]
        ids = set(labels)
    except (OSError, Unfamiliar):
        raise
    except Exception as exc:  # half a pickle raises whatever the missing half leads to
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
    return sorted(n for n in names if len(n) == _UUID and n.count("-") == 4 and _is_stored(os.path.join(palace, n)))


def _is_stored(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, META))


class IndexGuard:
    """Guards the indexes of one palace.

    Args:
        palace: the palace directory.
        store: directory for the copies; made when needed.
        say: takes a line for the log.
    """

    def __init__(self, palace: str, store: str, say: Callable[[str], None]) -> None:
        self._palace = palace
        self._store = store
        self._say = say
        self._seen: dict[str, tuple[int, int]] = {}

    # -- before the palace is opened ---------------------------------------------------------------

    def mend(self) -> list[dict[str, str]]:
        """Put copies back where an index is torn, and copy what is sound.

        Returns:
            what could not be mended, as {"what", "hint"}.
        """
        troubles = []
        for name in segments(self._palace):
            folder = os.path.join(self._palace, name)
            try:
                read_ids(folder)
                self._compare(name)
            except Torn as exc:
                trouble = self._restore(name, str(exc))
                if trouble:
                    troubles.append({"what": trouble, "hint": "mempalace repair"})
                    continue
            except (OSError, Unfamiliar) as exc:
                self._say(f"index {name} can't be checked: {exc}")
                continue
            self._copy_if_new(name)
        self._forget_others()
        return troubles

    def _compare(self, name: str) -> None:
        """Metadata as it was when it was copied, beside other files: a store of updates was cut short."""
        copy = self._newest_copy(name)
        then = _read_stamps(copy) if copy is not None else None
        now = _stamps(os.path.join(self._palace, name))
        if then is not None and then[-1] == now[-1] and then != now:
            raise Torn("its files are newer than its metadata")

    def _restore(self, name: str, why: str) -> str:
        """Put the copy back; what hinders it, or "" when done."""
        torn = f"the search index {name} was torn by a kill ({why})"
        copy = self._newest_copy(name)
        if copy is None:
            return f"{torn} and there is no copy of it"
        try:
            ids = read_ids(copy)
            if not self._belongs(name, ids):
                return f"{torn} and its copy does not fit the database any more"
            folder = os.path.join(self._palace, name)
            with open(os.path.join(folder, META), "wb"):
                pass  # emptied first and put back last: half of this is torn as well, whatever tore it before
            for file in FILES:
                part = os.path.join(folder, file + ".part")
                shutil.copyfile(os.path.join(copy, file), part)
                os.replace(part, os.path.join(folder, file))
        except (Torn, Unfamiliar, OSError, sqlite3.Error) as exc:
            return f"{torn} and its copy can't be put back: {exc}"
        self._say(f"{torn}; put back its last complete state of {len(ids)} entries, the database holds the rest")
        return ""

    def _belongs(self, name: str, ids: set[str]) -> bool:
        """Whether the copy's ids and the queue since then give exactly the ids of the database.

        Opens the database: only allowed while this process has it open nowhere else (closing a second descriptor
        would drop SQLite's locks).
        """
        path = os.path.join(self._palace, "chroma.sqlite3")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            row = db.execute("SELECT collection FROM segments WHERE id = ?", (name,)).fetchone()
            stored = db.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (name,)).fetchone()
            if row is None:
                return False
            alive = {
                i
                for (i,) in db.execute(
                    "SELECT e.embedding_id FROM embeddings e JOIN segments s ON s.id = e.segment_id "
                    "WHERE s.collection = ?",
                    row,
                )
            }
            tail = db.execute(
                "SELECT operation, id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id",
                (_number(stored[0]) if stored else 0, f"%{row[0]}"),
            )
            found = set(ids)
            for operation, id_ in tail:
                if operation == _DELETE:
                    found.discard(id_)
                elif operation != _UPDATE:
                    found.add(id_)
        return found == alive

    # -- while it is open --------------------------------------------------------------------------

    def after_write(self) -> None:
        """Copy every index that was stored since the last look. Cheap where none was: a stat for each."""
        for name in segments(self._palace):
            self._copy_if_new(name)

    def _copy_if_new(self, name: str) -> None:
        folder = os.path.join(self._palace, name)
        try:
            meta = _stamp(folder, META)
            if self._seen.get(name) == meta:
                return
            self._seen[name] = meta  # also where it fails: the next try is at the next store
            stamps = _stamps(folder)
            newest = self._newest_copy(name)
            if newest is None or _read_stamps(newest) != stamps:
                self._copy(name, stamps)
        except OSError as exc:
            self._drop_copies(name, keep=None)  # an old copy would be worse than none
            self._say(f"index {name} could not be copied aside: {exc}")

    def _copy(self, name: str, stamps: Stamps) -> None:
        target = os.path.join(self._store, f"{name}.{stamps[-1][0]}")
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

    def _copies(self, name: str) -> list[str]:
        try:
            found = [n for n in os.listdir(self._store) if n.startswith(name + ".")]
        except OSError:
            return []
        return [os.path.join(self._store, n) for n in found]

    def _newest_copy(self, name: str) -> str | None:
        complete = [(stamps[-1], path) for path in self._copies(name) if (stamps := _read_stamps(path)) is not None]
        return max(complete)[1] if complete else None

    def _drop_copies(self, name: str, keep: str | None) -> None:
        for path in self._copies(name):
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)

    def _forget_others(self) -> None:
        """Remove copies of indexes that the palace has no more."""
        try:
            copied = {entry[:_UUID] for entry in os.listdir(self._store)}
        except OSError:
            return
        for name in copied:
            if not os.path.isdir(os.path.join(self._palace, name)):
                self._drop_copies(name, keep=None)


def _number(seq_id: Any) -> int:
    """A sequence number; Chroma 0.6 stored them as big-endian bytes."""
    return int.from_bytes(seq_id, "big") if isinstance(seq_id, bytes) else int(seq_id)


def _stamp(folder: str, file: str) -> tuple[int, int]:
    """(modification time in ns, size)."""
    found = os.stat(os.path.join(folder, file))
    return found.st_mtime_ns, found.st_size


def _stamps(folder: str) -> Stamps:
    """Of all files of an index, the metadata, which is written last, at the end."""
    return [_stamp(folder, file) for file in FILES]


def _read_stamps(copy: str) -> Stamps | None:
    """Those of the index when it was copied; None where the copy is not complete."""
    try:
        with open(os.path.join(copy, _COMPLETE), encoding="ascii") as file:
            found = [(int(time_ns), int(size)) for time_ns, size in json.load(file)]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == len(FILES) else None
