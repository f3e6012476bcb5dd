"""States the dimension of an index in its metadata, where stock mempalace takes the index for corrupt without it.

Chroma's own Rust leaves the dimension out, reads it where it is there, and keeps it. mempalace 3.4.0 then believes the
index only while no entry was ever deleted from it, and else renames it away (upstream #1710).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from typing import Callable

from ..system.shared_files import SharedFolder
from ..system.sqlite_files import uri_of
from .index_guard import segments
from .index_metadata import META, MOST_BYTES, Torn, UnknownFormat, parse_metadata

_DATABASE = "chroma.sqlite3"
_WITHOUT = b"\x80\x03}(X\x0e\x00\x00\x00dimensionalityN"  # how such a pickle begins
_NUMBER = struct.Struct("<ci")
_MOST = 1 << 20


class DimensionWriter:
    """Writes dimensions into the indexes of one palace.

    Args:
        palace: the palace directory.
        log: takes a line for the log.
    """

    def __init__(self, palace: str, log: Callable[[str], None]) -> None:
        self._palace = palace
        self._log = log
        self._seen: dict[str, tuple[int, int]] = {}  # index -> stamp of the metadata that needs nothing

    def write(self) -> None:
        """Look at every index that changed since the last call. Call it while this process has none of them open."""
        if not os.path.isdir(self._palace):
            return  # no palace yet
        try:
            with SharedFolder.open(self._palace) as palace:
                for name in segments(palace):
                    self._look(palace, name)
        except (OSError, sqlite3.Error) as exc:
            self._log(f"the dimensions of the indexes can't be written: {exc}")

    def _look(self, palace: SharedFolder, name: str) -> None:
        with palace.folder(name) as index:
            stamp = _stamp(index)
            if stamp == self._seen.get(name):
                return
            data = index.read(META, MOST_BYTES) or b""
            if data.startswith(_WITHOUT) and _had_deletes(data):
                os.close(palace.open_read(_DATABASE))  # refuses a link, and what is not a regular file of ours
                dimension = self._dimension(name)
                if dimension:
                    index.replace(META, with_dimension(data, dimension))
            self._seen[name] = _stamp(index)

    def _dimension(self, name: str) -> int:
        uri = uri_of(os.path.join(self._palace, _DATABASE), "mode=ro")
        query = "SELECT c.dimension FROM segments s JOIN collections c ON c.id = s.collection WHERE s.id = ?"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as db:
            row = db.execute(query, (name,)).fetchone()
        return row[0] if row and isinstance(row[0], int) and 0 < row[0] <= _MOST else 0


def with_dimension(data: bytes, dimension: int) -> bytes:
    """The same metadata with a dimension; `data` has none."""
    return _WITHOUT[:-1] + _NUMBER.pack(b"J", dimension) + data[len(_WITHOUT) :]


def _had_deletes(data: bytes) -> bool:
    try:
        ids, total = parse_metadata(data)
    except (Torn, UnknownFormat):
        return False  # the index guard's business
    return bool(ids) and len(ids) != total


def _stamp(index: SharedFolder) -> tuple[int, int]:
    found = index.look(META)
    return (found.st_mtime_ns, found.st_size) if found is not None else (0, 0)
