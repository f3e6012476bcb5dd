"""A job as a client of the broker's protocol: it sends a hello and one more line, and gets two answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ...protocol.jsonrpc import load_object
from ..internal_client import InternalClient
from ..machine.session import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runner import ProtocolRunner

VIA = "job"


class JobSession(InternalClient):
    """One connection of a job.

    Args:
        done: called once, with the answer to the second line; None if the broker leaves before that.
    """

    def __init__(
        self, runner: ProtocolRunner, number: int, lines: list[bytes], done: Callable[[dict[str, Any] | None], None]
    ) -> None:
        super().__init__(runner, number, VIA, lines)
        self._done: Callable[[dict[str, Any] | None], None] | None = done
        self._answers: list[dict[str, Any]] = []

    def start(self) -> None:
        """Send both lines."""
        self._runner.opened(self, 0, Origin.HOST)
        self._work()

    def send(self, data: bytes) -> None:
        """Take an answer."""
        self._answers += [load_object(line) for line in data.split(b"\n") if line]
        if len(self._answers) > 1 or "error" in self._answers[0]:
            self._finish(self._answers[-1])

    def close(self) -> None:
        """End the session: the broker leaves."""
        self._finish(None)

    def refuse(self, text: str) -> None:  # noqa: ARG002 - a job has no use for it
        """End the session."""
        self._finish(None)

    def drop(self, reason: str) -> None:  # noqa: ARG002
        """End the session."""
        self._finish(None)

    def _finish(self, answer: dict[str, Any] | None) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self.leaving = True
        asyncio.get_running_loop().call_soon(self._runner.closed, self)  # not in the middle of a turn
        asyncio.get_running_loop().call_soon(done, answer)
