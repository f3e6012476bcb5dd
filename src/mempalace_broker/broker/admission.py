"""How many clients there may be, and how much of what they sent or are owed may wait in memory.

All clients are processes of one user, or root's. A process that leaks connections must not lock the others out: when
there is no room, those that never said a word go first, and only then is a newcomer refused, in words. Commands that
show whose the connections are, or end the broker, are served even then.
"""

from __future__ import annotations

import errno
import resource
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..protocol.hello import RESTART, STATUS, STOP
from ..protocol.jsonrpc import load_object

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Collection, Iterable

    from ..protocol.framing import TooLong
    from ..system.clock import Clock

MOST = 2000
RESERVE = 160  # descriptors for files, engines, handshakes over TCP, and a burst of connections to be refused
SILENT_S = 1.0  # a client speaks at once
MOST_ASKING = 8  # clients beyond the others, which only ask about the broker
ASKING_S = 5.0  # for each of them
_ASKED = (STATUS, STOP, RESTART)
_LONGEST_ASKED = 16_384
MOST_HELD = 256 << 20  # bytes of all unfinished lines
MOST_UNREAD = 512 << 20  # bytes of all answers that were not read
_LOG_EVERY_S = 30.0
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # this process, or the system, has no more now


class Client(Protocol):
    """What is asked of a connection.

    Attributes:
        who: whose it is. opened: monotonic seconds. heard: it has sent a line. leaving: it is being closed.
    """

    who: str
    opened: float
    heard: bool
    leaving: bool

    def drop(self, reason: str) -> None:
        """Drop it at once."""


_Client = TypeVar("_Client")


def largest_of(clients: Collection[_Client], size: Callable[[_Client], int], most: int) -> _Client | None:
    """The client with the most bytes, as `size` counts them, if all together have more than `most`; else None."""
    return max(clients, key=size) if sum(map(size, clients)) > most else None


def only_asks(lines: Iterable[bytes | TooLong]) -> bool:
    """Whether all lines are requests that a broker without room for sessions still answers."""
    short = (line if isinstance(line, bytes) and len(line) <= _LONGEST_ASKED else b"" for line in lines)
    return all(load_object(line).get("method") in _ASKED for line in short)


def most_connections() -> int:
    """How many connections the limit of open files allows, a reserve left aside."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST
    return min(MOST, max(soft // 2, soft - RESERVE))


class Admission:
    """Decides which connections stay.

    Args:
        most: says how many there may be now; an eighth of them is kept from each single user.
    """

    def __init__(self, clock: Clock, log: logging.Logger, most: Callable[[], int] = most_connections) -> None:
        self._most = most
        self._clock = clock
        self._log = log
        self._logged_at = float("-inf")
        self.refused = 0

    def refusal(self, who: str, clients: Collection[Client]) -> str:
        """Why one more connection of `who` is refused, "" if it isn't; a silent one may have been dropped for it."""
        most = self._most()
        most_of_one = most - most // 8
        if len(clients) < most_of_one:
            return ""
        staying = [client for client in clients if not client.leaving]
        own = [client for client in staying if client.who == who]
        if len(own) < most_of_one and len(staying) < most:
            return ""
        now = self._clock.monotonic()
        crowd = own if len(own) >= most_of_one else staying
        silent = [client for client in crowd if not client.heard and now - client.opened >= SILENT_S]
        if silent:
            min(silent, key=lambda client: client.opened).drop("it never sent a line, and others need the room")
            return ""
        self.refused += 1
        self._note(who, len(crowd), now)
        return (
            f"the broker has {len(crowd)} connections and takes no more. Hint: `mempalace-broker status` shows "
            "whose they are; end agents that were left over."
        )

    def _note(self, who: str, count: int, now: float) -> None:
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            self._log.warning("refused a connection of %s: there are %d (%d refused so far)", who, count, self.refused)
