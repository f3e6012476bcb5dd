"""A client of the protocol within the broker itself: a request over HTTP, or a job."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..system.unix_socket import PeerProcess
from .runner import Conn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocol.framing import TooLong
    from .runner import ProtocolRunner


class InternalClient(Conn):
    """The part that hands lines to the protocol; a subclass takes the answers, and ends by setting `leaving`."""

    unread = 0

    def __init__(self, runner: ProtocolRunner, number: int, via: str, lines: Iterable[bytes] = ()) -> None:
        self.number = number
        self.via = self.who = via
        self.peer = PeerProcess()
        self.proof = ""
        self.opened = 0.0
        self.heard = True
        self.leaving = False
        self._runner = runner
        self._lines: deque[bytes | TooLong] = deque(lines)

    @property
    def unfinished(self) -> int:
        """Number of bytes not yet processed."""
        return sum(len(line) for line in self._lines if isinstance(line, bytes))

    def _work(self) -> None:
        """Hand over the lines, a share in each turn of the loop."""
        if self.leaving:
            return
        if self._runner.work(self, self._lines):
            self._runner.turns.add_later(self._take_turn)
        else:
            self._worked()

    def _take_turn(self) -> bool:
        self._work()
        return False

    def _worked(self) -> None:
        """The protocol has all lines."""
