"""The last lines of a log; and lines of an engine without contents of the memory."""

from __future__ import annotations

import os
import re

PREVIOUS = ".1"  # suffix of the one older log that rotation keeps
_BLOCK = 65536
_OF_A_TRACEBACK = re.compile(r'Traceback \(|\s+File "[^"]*", line \d+|[\w.]*(?:Error|Exception|Warning|Interrupt)\b')
_NOT_SHOWN = "(a line of the engine, not shown)"


def tail(path: str, n: int, most: int = _BLOCK) -> list[str]:
    """Return the last `n` lines of a log, oldest first, from its last `most` bytes; empty if it can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        size = os.fstat(fd).st_size
        start = max(0, size - most)
        data = os.pread(fd, size - start, start)
    except OSError:
        return []
    finally:
        os.close(fd)
    lines = data.decode("utf-8", "replace").splitlines()
    if start and len(lines) > 1:
        del lines[0]  # cut in the middle
    return lines[-n:] if n > 0 else []


def without_contents(line: str) -> str:
    """Return the part of an engine's line that belongs to a traceback: a place, or a kind of error without its text."""
    match = _OF_A_TRACEBACK.match(line)
    return line[: match.end()] if match else _NOT_SHOWN
