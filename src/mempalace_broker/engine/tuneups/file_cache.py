"""Answers that hold while the files that they were read from are unchanged."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Key = tuple[str, str]
    Stamp = tuple[int, int, int] | None  # inode, modification time in ns, size; None: the file is missing

_RACY_NS = 50_000_000  # a file changed this recently may change again without its time stamp showing it


def stamps_of(paths: list[str]) -> list[Stamp]:
    """Stamps of files, in the same order."""
    return [_stamp(path) for path in paths]


def _stamp(path: str) -> Stamp:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return st.st_ino, st.st_mtime_ns, st.st_size


def settled_before(stamps: list[Stamp], time_ns: int) -> bool:
    """Whether no file changed in the last moments before that time."""
    return all(one is None or one[1] < time_ns - _RACY_NS for one in stamps)


def database_files(palace: str) -> list[str]:
    """The files whose change shows a change of the palace's database."""
    database = os.path.join(palace, "chroma.sqlite3")
    return [database, database + "-wal"]


class FileCache:
    """Answers by key, each valid while the files that it was read from are unchanged."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[Any, list[str], list[Stamp]]] = {}

    def get(self, key: Key) -> Any:
        """The answer, None if it is unknown or no longer valid."""
        answer, paths, stamps = self._known.get(key, (None, [], []))
        if stamps_of(paths) != stamps:
            self._known.pop(key, None)  # another thread may have seen it as well
            return None
        return answer

    def put(self, key: Key, answer: Any, paths: list[str], before: list[Stamp]) -> None:
        """Keep an answer, unless a file changed a moment ago or since `before`, the stamps of the first paths."""
        stamps = stamps_of(paths)
        if stamps[: len(before)] == before and settled_before(stamps, time.time_ns()):
            self._known[key] = answer, paths, stamps
