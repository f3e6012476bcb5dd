"""The part of kqueue that `system.darwin` uses, on Linux's epoll: the same edges, and the same end of the other side.

`tests/unit/system/test_darwin.py` holds it against the real one where there is one.
"""

from __future__ import annotations

import errno
import os
import select as real_select
import stat
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

select: Any = real_select  # what one system has, the other's type checker does not know

READ, WRITE = -1, -2
ADD, CLEAR, EOF = 1, 0x20, 0x8000


class Event(NamedTuple):
    """`select.kevent`."""

    ident: int
    filter: int = READ
    flags: int = ADD
    fflags: int = 0
    data: int = 0
    udata: int = 0


class Queue:
    """`select.kqueue`, for events that are added with CLEAR."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._filters: dict[int, int] = {}

    def fileno(self) -> int:
        return int(self._epoll.fileno())

    def close(self) -> None:
        self._epoll.close()

    def control(self, changes: Iterable[Event] | None, most: int, timeout: float | None = None) -> list[Event]:
        for change in changes or ():
            self._add(change)
        if not most:
            return []
        found = self._epoll.poll(-1 if timeout is None else timeout, most)
        over = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
        return [Event(fd, self._filters[fd], EOF if mask & over else 0) for fd, mask in found]

    def _add(self, change: Event) -> None:
        assert change.flags == ADD | CLEAR
        if stat.S_ISCHR(os.fstat(change.ident).st_mode) and not os.isatty(change.ident):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        wanted = select.EPOLLOUT if change.filter == WRITE else select.EPOLLIN | select.EPOLLRDHUP
        self._filters[change.ident] = change.filter
        self._epoll.register(change.ident, wanted | select.EPOLLET)


def install(put: Callable[[str, Any], None] = lambda name, value: setattr(real_select, name, value)) -> None:
    """Put the fake where Python has the real one."""
    names: dict[str, Any] = {"kqueue": Queue, "kevent": Event, "KQ_FILTER_READ": READ, "KQ_FILTER_WRITE": WRITE}
    names |= {"KQ_EV_ADD": ADD, "KQ_EV_CLEAR": CLEAR, "KQ_EV_EOF": EOF}
    for name, value in names.items():
        put(name, value)
