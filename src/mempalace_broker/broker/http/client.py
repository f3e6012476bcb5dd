"""The interface of a connection to the code that answers its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...system.loopback_peer import LoopbackPeer
    from .machine.gate import Refusal


class Pending(Protocol):
    """An answer that a connection waits for."""

    def lost(self) -> None:
        """The connection broke."""


class Client(Protocol):
    """A connection.

    Attributes:
        reply: the answer that it waits for, or None. peer: its other end.
    """

    reply: Pending | None
    peer: LoopbackPeer

    def respond(self, status: int, body: bytes, *headers: tuple[str, str], kind: str = "application/json") -> None:
        """Send a whole answer."""

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal."""

    def begin_stream(self, event: str, *, prime: bool) -> None:
        """Begin a stream of events. `event`: the id of the first, or ""; `prime`: send it at once."""

    def end_stream(self, messages: list[bytes], event: str) -> None:
        """Send the last events of the stream, the last of them with the id `event`, unless that is ""."""
