"""Which processes have a palace's files open. Never opens one of them itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..system.kernel import real_path

_DATABASES = (".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".sqlite3-journal")
_INDEX = ".bin"


@dataclass(frozen=True)
class OpenFile:
    """A process with palace files open.

    Attributes:
        command: its name, never its arguments, they may hold secrets. since: when it started, 0 if not known.
        parents: pids and names of the processes that it comes from, nearest first.
    """

    pid: int
    command: str
    files: tuple[str, ...]
    since: float = 0.0
    parents: tuple[tuple[int, str], ...] = ()


def find_open_files(palace: str, *more: str) -> list[OpenFile]:
    """Find the processes that have a database or index of the palace open, among those that we may look into.

    Args:
        palace: the palace directory, symlinks resolved.
        more: single files besides, such as a knowledge graph elsewhere.
    """
    prefix = real_path(palace).rstrip("/") + "/"
    others = {real_path(path) for path in more}
    found = []
    for pid, paths in _open_files():
        mine = {path for path in paths if _is_palace_file(path, prefix) or path in others}
        if mine:
            since, parents = _origin(pid)
            found.append(OpenFile(pid, _command(pid), tuple(sorted(mine)), since, parents))
    return sorted(found, key=lambda entry: entry.pid)


def _is_palace_file(path: str, prefix: str) -> bool:
    return path.startswith(prefix) and path.endswith((*_DATABASES, _INDEX))


def _open_files() -> Iterator[tuple[int, list[str]]]:
    if os.path.isdir("/proc/self/fd"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                yield int(name), _links(f"/proc/{name}/fd")
        return
    import psutil

    for process in psutil.process_iter():
        try:
            yield process.pid, [entry.path for entry in process.open_files()]
        except (psutil.Error, OSError):
            continue  # another user's, or gone


def _links(folder: str) -> list[str]:
    """Where the descriptors lead; psutil reads the same, but skips those it can't classify."""
    out: list[str] = []
    try:
        names = os.listdir(folder)
    except OSError:  # another user's, or gone
        return out
    for name in names:
        try:
            out.append(os.readlink(f"{folder}/{name}").removesuffix(" (deleted)"))
        except OSError:
            continue  # closed meanwhile
    return out


def _origin(pid: int) -> tuple[float, tuple[tuple[int, str], ...]]:
    """When a process started, and what it comes from."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time(), tuple((parent.pid, _command(parent.pid)) for parent in process.parents())
    except (psutil.Error, OSError):
        return 0.0, ()  # gone, or another user's


def _command(pid: int) -> str:
    from ..system.process_command import process_command

    return process_command(pid) or "?"
