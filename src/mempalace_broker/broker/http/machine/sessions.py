"""The sessions of HTTP clients, and the answers that are kept for those whose connection broke.

A session's id proves itself: it is a random number and its HMAC under the token that it was made for. So every broker
that has the token knows the ids of the brokers before it, and a client goes on after a restart as if nothing had
happened; there is nothing else that a session would have to remember. Only an id that is forged, of another token, or
whose client ended the session is unknown.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_SESSIONS = 1024
MOST_STREAMS = 256
MOST_KEPT_BYTES = 32 << 20  # of all answers that wait for their clients to come back
_DIGITS = 32  # of the number, and of its HMAC


@dataclass(slots=True, eq=False)
class HttpSession:
    """One session. `agent`: the client's name for itself. `calls`: exchanges under way, by number. `flow`: the number
    of the first of them, by which all take turns as one client.
    """

    id: str
    agent: str = ""
    flow: int = 0
    calls: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Stream:
    """The answer to one POST that takes long. `answer`: its messages, once there are any.

    Attributes:
        session: whose it is. listener: takes the answer when it comes; None while nobody is connected.
    """

    id: str
    session: str
    listener: Callable[[list[bytes]], None] | None = None
    answer: list[bytes] | None = None

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(map(len, self.answer or ()))


class HttpSessions:
    """All of one broker. Bounded: what is forgotten here is only a name, or an answer that nobody came for.

    Args:
        chance: gives 16 random bytes.
    """

    def __init__(self, chance: Callable[[], bytes]) -> None:
        self._chance = chance
        self._live: OrderedDict[str, HttpSession] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._streams: OrderedDict[str, Stream] = OrderedDict()

    def __len__(self) -> int:
        """How many are known by name."""
        return len(self._live)

    # -- sessions

    def start(self, token: str, agent: str) -> HttpSession:
        """A new session for whoever showed `token`."""
        number = self._chance().hex()
        return self._remember(HttpSession(number + _mac(token, number), agent))

    def find(self, id_: str, token: str) -> HttpSession | None:
        """The session of that id, also of an earlier broker's; None where it is unknown."""
        known = self._live.get(id_)
        number, mac = id_[:_DIGITS], id_[_DIGITS:]
        if id_ in self._ended or not id_.isascii() or not hmac.compare_digest(mac, _mac(token, number)):
            return None
        if known is None:
            return self._remember(HttpSession(id_))
        self._live.move_to_end(id_)
        return known

    def end(self, session: HttpSession) -> None:
        """Its client needs it no more: the id is unknown from now on, and its answers are dropped."""
        self._live.pop(session.id, None)
        self._ended[session.id] = None
        if len(self._ended) > MOST_SESSIONS:
            self._ended.popitem(last=False)
        for stream in [stream for stream in self._streams.values() if stream.session == session.id]:
            del self._streams[stream.id]

    def _remember(self, session: HttpSession) -> HttpSession:
        self._live[session.id] = session
        if len(self._live) > MOST_SESSIONS:
            idle = next((old for old in self._live.values() if not old.calls), session)
            del self._live[idle.id]
        return session

    # -- streams

    def open_stream(self, session: HttpSession) -> Stream:
        """A stream by whose id its client can come back for the answer."""
        stream = Stream(self._chance().hex(), session.id)
        self._streams[stream.id] = stream
        self._bound()
        return stream

    def stream(self, event: str, session: HttpSession) -> Stream | None:
        """The stream that the last event of a client was in; None where it is unknown, or another session's."""
        found = self._streams.get(event.partition(".")[0])
        return found if found is not None and found.session == session.id else None

    def deliver(self, stream: Stream, answer: list[bytes]) -> None:
        """The answer is there: hand it to whoever listens, else keep it."""
        if stream.listener is not None:
            self._streams.pop(stream.id, None)
            stream.listener(answer)
        else:
            stream.answer = answer
            self._bound()

    def delivered(self, stream: Stream) -> None:
        """Its client has got the answer."""
        self._streams.pop(stream.id, None)

    def _bound(self) -> None:
        kept = [stream for stream in self._streams.values() if stream.answer is not None]
        excess = len(self._streams) - MOST_STREAMS
        size = sum(stream.size for stream in kept)
        for stream in kept:  # oldest first
            if excess <= 0 and size <= MOST_KEPT_BYTES:
                return
            del self._streams[stream.id]
            excess -= 1
            size -= stream.size


def _mac(token: str, number: str) -> str:
    return hmac.digest(token.encode("ascii"), b"session " + number.encode("ascii", "replace"), "sha256").hex()[:_DIGITS]
