"""The interfaces between a connection, its listener, and the code that answers its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from ...system.loopback_peer import LoopbackPeer
    from ..turns import Turns
    from .machine.gate import Admitted, Head, Refusal


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


_Connection_contra = TypeVar("_Connection_contra", contravariant=True)


class Listener(Protocol[_Connection_contra]):
    """What a connection asks of its listener.

    Attributes:
        stall_s: a client that reads nothing for so many seconds is dropped. turns: in which connections are read.
    """

    stall_s: float
    turns: Turns

    @property
    def overfull(self) -> bool:
        """Whether the bodies on their way take too much memory."""

    def made(self, connection: _Connection_contra) -> None:
        """A connection was accepted."""

    def lost(self, connection: _Connection_contra) -> None:
        """A connection is gone."""

    def judge(self, head: Head) -> Admitted | Refusal:
        """Whether a request may go on."""

    def handle(self, connection: _Connection_contra, call: Admitted, body: bytes) -> None:
        """Answer an admitted request."""

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal."""

    def limit_unread(self) -> None:
        """Drop the client with the most unread bytes if those of all take too much memory."""
