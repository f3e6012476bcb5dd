"""The last lines of a log."""

from __future__ import annotations

import os

PREVIOUS = ".1"  # suffix of the one older log that rotation keeps
_BLOCK = 65536


def tail(path: str, n: int) -> list[str]:
    """Return the last `n` lines of a log, oldest first, from its last 64 KB; empty if it can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        start = max(0, os.fstat(fd).st_size - _BLOCK)
        data = os.pread(fd, _BLOCK, start)
    except OSError:
        return []
    finally:
        os.close(fd)
    lines = data.decode("utf-8", "replace").splitlines()
    if start and len(lines) > 1:
        del lines[0]  # cut in the middle
    return lines[-n:] if n > 0 else []
