"""Opening the palace again after another process may have worked on it: the lock first, then nobody else's files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from ..errors import StateRootError
from ..protocol.engine_frames import SWAPPED_STORE, WRITE_LOCK_HELD
from ..protocol.write_lock import FOLDER, command_name, lock_name, read_note
from ..system.palace_stores import check_stores
from .adapter import EngineFailure, Mempalace
from .parking import real_path

_POLL_S = 0.05  # between two looks: neither a flock that is released nor a file that is closed sends an event
_OTHERS_S = 10.0
_OURS = "mempalace-broker"  # a backup reads beside us
_STORE_FILES = (".sqlite3", ".sqlite3-wal", ".sqlite3-shm", ".sqlite3-journal", ".bin")


class Lookout:
    """Looks at other processes. Make it before the engine's writes are limited.

    Landlock hides other processes from a thread whose writes it limits, and from threads that this one starts.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "engine-lookout")
        self._thread.submit(int).result()  # it starts now
        self._outlasted: set[str] = set()

    def other_opener(self, mempalace: Mempalace) -> str:
        """Another process that has a file of the palace open, in words; "" where there is none to wait for."""
        return self._thread.submit(_other_opener, mempalace, self._outlasted).result()

    def outlast(self, opener: str) -> None:
        """Wait no more for a process that keeps files open without the lock: each call would have to."""
        self._outlasted.add(opener)


def wait_for_palace(mempalace: Mempalace, gone: threading.Event, tell: Callable[[str], None], lookout: Lookout) -> bool:
    """Take the upstream write lock, as soon as nobody else has it; False if `gone` was set before.

    A mine gives up the lock a moment before it closes its files, and a hook of 3.4.0 opens some before it takes the
    lock. They get that moment; a process that keeps files open without the lock does not stop us.

    Args:
        tell: gets who is in the way, in words, whenever that changes; "" once nobody is.

    Raises:
        EngineFailure: the lock can't be taken, whoever has it; or a store is a link now.
    """
    said, locked, patience = "", False, 0.0
    while not gone.is_set():
        if not locked:
            locked = _take_lock(mempalace)
            patience = time.monotonic() + _OTHERS_S
        other = lookout.other_opener(mempalace) if locked else _holder(mempalace.palace_path())
        if locked and other and time.monotonic() > patience:
            lookout.outlast(other)
            other = ""
        if other != said:
            said = other
            tell(other)
        if not other:
            refuse_swapped_stores(mempalace, real_path(mempalace.palace_path()))
            return True
        gone.wait(_POLL_S)
    return False


def _take_lock(mempalace: Mempalace) -> bool:
    try:
        mempalace.take_write_lock()
    except EngineFailure as failure:
        if failure.reason != WRITE_LOCK_HELD:
            raise
        return False
    return True


def refuse_swapped_stores(mempalace: Mempalace, palace: str) -> None:
    """Check the stores in this folder as the broker does before it starts an engine. Raises EngineFailure."""
    try:
        check_stores(palace, mempalace.graph_path() or os.path.join(palace, "knowledge_graph.sqlite3"))
    except StateRootError as exc:
        raise EngineFailure(SWAPPED_STORE, exc.message, exc.hint) from exc


def _other_opener(mempalace: Mempalace, outlasted: Collection[str]) -> str:
    """Another Python process that has a file of the palace open, in words; "" where there is none.

    Only Linux tells without a tool that this interpreter may lack.
    """
    palace = real_path(mempalace.palace_path()).rstrip("/") + "/"
    for pid in _python_processes():
        command = command_name(_arguments(pid))
        if command.startswith(_OURS):
            continue
        paths = [_link(f"/proc/{pid}/fd/{fd}") for fd in _names(f"/proc/{pid}/fd")]
        if any(path.startswith(palace) and path.endswith(_STORE_FILES) for path in paths):
            opener = f"pid {pid} ({command or 'python'})"
            if opener not in outlasted:
                return opener
    return ""


def _python_processes() -> list[str]:
    pids = [name for name in _names("/proc") if name.isdigit() and int(name) != os.getpid()]
    return [pid for pid in pids if "python" in os.path.basename(_link(f"/proc/{pid}/exe"))]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # another user's, gone, or no Linux
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # as above
        return ""


def _arguments(pid: str) -> list[str]:
    """The arguments of an interpreter; the program that it runs is the first."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(4096).decode("utf-8", "replace").split("\0")[1:]
    except OSError:
        return []


def _holder(palace: str) -> str:
    """Who holds the upstream write lock, since when."""
    path = os.path.join(os.path.expanduser("~"), FOLDER, lock_name(real_path(palace)))
    try:
        with open(path, "rb") as file:
            pid, command = read_note(file.read(4096))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.fstat(file.fileno()).st_mtime))
    except OSError:
        pid, command, since = 0, "", "?"
    who = f"pid {pid}" if pid else "a process that left no name"
    return f"{who} ({command}), since {since}" if command else f"{who}, since {since}"
