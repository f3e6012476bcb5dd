"""A log of bounded size with one previous, and the last lines of any log."""

from __future__ import annotations

import os
import threading

PREVIOUS = ".1"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 65536


class LogFile:
    """Appends lines to `path`; a full file becomes `path`.1 and a new one begins.

    Threads may share it. A log that can't be written (full disk) drops lines and counts them: it never stops
    the daemon.

    Args:
        path: the log, created 0600.
        limit: bytes after which it is turned over; there are never more than about twice as many on disk.
        follow: descriptors (the daemon's stdout and stderr) that are pointed at the new file at every turn,
            so that what libraries print ends up in the current log too.
    """

    def __init__(self, path: str, limit: int, follow: tuple[int, ...] = ()) -> None:
        self.path = path
        self.dropped = 0
        self._limit = limit
        self._follow = follow
        self._lock = threading.Lock()
        self._fd = os.open(path, _FLAGS, 0o600)

    def write(self, line: str) -> None:
        """Append one line; a newline is added. Line breaks inside become spaces: one event, one line."""
        data = (" ".join(line.splitlines()) + "\n").encode("utf-8", "replace")
        with self._lock:
            if self._fd < 0:
                self.dropped += 1
                return
            try:
                # asked each time: others append through the followed descriptors
                size = os.fstat(self._fd).st_size
                if size and size + len(data) > self._limit:
                    self._turn()
                os.write(self._fd, data)
            except OSError:
                self.dropped += 1

    def close(self) -> None:
        """Stop writing; followed descriptors stay as they are."""
        with self._lock:
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
                os.close(fd)

    def _turn(self) -> None:
        os.replace(self.path, self.path + PREVIOUS)
        fresh = os.open(self.path, _FLAGS, 0o600)
        os.close(self._fd)
        self._fd = fresh
        for fd in self._follow:
            os.dup2(fresh, fd)


def tail(path: str, n: int) -> list[str]:
    """The last `n` lines of a log, oldest first, from its last 64 KB; empty if there is none to read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - _BLOCK)
        data = os.pread(fd, _BLOCK, start)
    except OSError:
        return []
    finally:
        os.close(fd)
    lines = data.decode("utf-8", "replace").splitlines()
    if start and len(lines) > 1:
        del lines[0]  # cut in the middle
    return lines[-n:] if n > 0 else []
