"""Shares one turn of the event loop among the connections that flood.

To read a small message, request, or chunk of a body costs far more than to send it, and the loop has other sessions and
the lease to serve. So reading stops after a few milliseconds, whoever sends how much on however many connections, and
goes on in the next turn of the loop; there each connection has one part read after the other's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE_S = 0.004  # of one turn of the loop; a request costs 0.1 ms


class Turns:
    """The connections whose turn is to come.

    Args:
        now: seconds, monotonic.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._waiting: deque[Callable[[], bool]] = deque()
        self._left = SHARE_S
        self._working = self._booked = False

    def add(self, read: Callable[[], bool]) -> None:
        """Call `read` until it returns False: at once while this turn of the loop has time left, else later."""
        self._waiting.append(read)
        self._work()

    def add_later(self, read: Callable[[], bool]) -> None:
        """The same from the next turn of the loop on."""
        self._waiting.append(read)
        self._book()

    def _work(self) -> None:
        if self._working:
            return
        self._working, began = True, self._now()
        try:
            until = began + self._left
            while self._waiting and self._now() < until:
                read = self._waiting.popleft()
                if self._more(read):
                    self._waiting.append(read)
        finally:
            self._working = False
            self._left -= self._now() - began
            self._book()

    def _book(self) -> None:
        if not self._booked:
            self._booked = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _more(self, read: Callable[[], bool]) -> bool:
        try:
            return read()
        except Exception as exc:  # noqa: BLE001 - of one connection: the others' turn comes all the same
            asyncio.get_running_loop().call_exception_handler({"message": "a request failed", "exception": exc})
            return False

    def _next_turn(self) -> None:
        self._booked, self._left = False, SHARE_S
        if self._waiting:
            self._work()
