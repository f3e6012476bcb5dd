"""One POST as a client of the broker's protocol: its messages in, the answers to them out, then it is over.

The protocol sees a client that says all it has to say and then no more; it closes such a one when nothing is owed. So a
POST needs no look into its body, whatever its size, and one that carries a batch no count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import OVERLOADED
from ...protocol.jsonrpc import error_line
from ..connection import LARGE
from ..internal_client import InternalClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..machine.session import Origin
    from ..runner import ProtocolRunner

VIA = "http"


class Exchange(InternalClient):
    """One POST. `unread`: bytes of the answer so far.

    Args:
        flow: whose turn its calls take, see Session.
        done: takes the lines of the answer, none for notifications; called once.
    """

    def __init__(
        self,
        runner: ProtocolRunner,
        number: int,
        origin: Origin,
        agent: str,
        flow: int,
        done: Callable[[list[bytes]], None],
    ) -> None:
        super().__init__(runner, number, VIA)
        self._origin = origin
        self._agent = agent
        self._flow = flow
        self._done: Callable[[list[bytes]], None] | None = done
        self._answer: list[bytes] = []
        self._ended = False

    def start(self, line: bytes) -> None:
        """Say it all."""
        self._lines.append(line)
        self._runner.opened(self, 0, self._origin, self._agent or VIA, self._flow)
        self._work()

    def add(self, line: bytes) -> None:
        """Say one thing more: a cancellation that came by another POST."""
        if self._done is not None:
            self._lines.append(line)
            self._work()

    def _worked(self) -> None:
        if not self._ended:
            self._ended = True
            self._runner.eof(self)

    def send(self, data: bytes) -> None:
        """A part of the answer."""
        self._answer.append(data)
        self.unread += len(data)
        if self.unread > LARGE:
            self._runner.limit_unread()

    def close(self) -> None:
        """Nothing more is owed, or the broker leaves."""
        self._finish()

    def refuse(self, text: str) -> None:
        """End it, and say why."""
        self._answer.append(error_line(None, OVERLOADED, text))
        self._finish()

    def drop(self, reason: str) -> None:
        """End it at once; of its answer, only `reason` is sent."""
        self._answer = []
        self.refuse(reason)

    def withdraw(self) -> None:
        """Nobody wants the answer any more, and what still waits for its turn need not run."""
        self._done, self._answer = None, []
        self.leaving = True
        self._runner.closed(self)

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self.leaving = True
        self._runner.closed(self)
        done(self._answer)
