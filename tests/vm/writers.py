"""Who writes to a palace, as the kernel of its files sees it: fanotify, with the process of every write.

    with Writers(world.palace) as writers:
        ...
    writers.turns()         # [{pid, ...}, ...]: who wrote, in turns

What a guest writes is written by its share's virtiofsd, so host and guest can be told apart.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.background import Background
from tests.proctools import STORE_SUFFIXES

_CLASS_NOTIF, _CLOEXEC = 0, 1
_MARK_ADD, _MARK_FILESYSTEM = 1, 0x100
_MODIFY = 0x2
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid


class Write(NamedTuple):
    """One write: seconds of the monotonic clock, who, the file's name."""

    at: float
    pid: int
    name: str


class Writers(Background):
    """Watches all stores below `root` while the block runs. Needs root.

    Attributes:
        writes: in order.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.writes: list[Write] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.fanotify_init(_CLASS_NOTIF | _CLOEXEC, os.O_RDONLY | os.O_CLOEXEC)
        flags, mask = _MARK_ADD | _MARK_FILESYSTEM, ctypes.c_uint64(_MODIFY)
        if self._fd < 0 or libc.fanotify_mark(self._fd, flags, mask, _AT_FDCWD, os.fsencode(root)) < 0:
            raise OSError(ctypes.get_errno(), "fanotify")
        self._ended, self._end = os.pipe()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._ended], [], [])
            if self._fd in ready:
                self._take(os.read(self._fd, 1 << 16))
            elif ready:
                return

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        while data:
            length, _, _, _, _, fd, pid = _EVENT.unpack_from(data)
            data = data[length:]
            if fd < 0:
                continue
            name = os.readlink(f"/proc/self/fd/{fd}")
            os.close(fd)
            if name.startswith(f"{self._root}/") and name.endswith((*STORE_SUFFIXES, "-shm")):
                self.writes.append(Write(now, pid, os.path.basename(name)))

    def turns(self) -> list[int]:
        """Pids in the order in which they wrote, one for every run of writes by the same."""
        turns: list[int] = []
        for write in self.writes:
            if not turns or turns[-1] != write.pid:
                turns.append(write.pid)
        return turns

    def end(self) -> None:
        os.write(self._end, b"x")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, exc, trace)
        for fd in (self._fd, self._ended, self._end):
            os.close(fd)
