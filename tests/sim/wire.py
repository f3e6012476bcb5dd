"""A simulated connection: in order within itself, late, in any cut, and sometimes cut off in the middle of a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .clockwork import Loop


class End(Protocol):
    """One of the two parties."""

    def got(self, wire: Wire, data: bytes) -> None: ...

    def hung_up(self, wire: Wire) -> None: ...


class _Way:
    """One direction."""

    def __init__(self, target: End) -> None:
        self.target = target
        self.last = 0.0
        self.pending = 0
        self.ended = False
        self.left = 1 << 60  # pieces still to be delivered; fewer once the connection is cut


class Wire:
    """`client` dialled, `server` accepted. `half`: a stream that still delivers after one party is done sending."""

    def __init__(self, loop: Loop, rng: random.Random, client: End, server: End) -> None:
        self._loop = loop
        self._rng = rng
        self._ways = {id(client): _Way(server), id(server): _Way(client)}  # by sender

    def send(self, sender: End, data: bytes) -> None:
        way = self._ways[id(sender)]
        if way.ended:
            return
        rng = self._rng
        cut = rng.randrange(1, len(data)) if len(data) > 1 and rng.random() < 0.25 else 0
        for piece in (data[:cut], data[cut:]) if cut else (data,):
            self._book(way, self._deliver, piece)

    def _book(self, way: _Way, step: Callable[[_Way, bytes], None], piece: bytes) -> None:
        delay = 0.0002 + self._rng.random() * (0.002 if self._rng.random() < 0.95 else 0.2)
        when = max(self._loop.now + delay, way.last)
        way.last = when
        way.pending += 1
        self._loop.after(when - self._loop.now, lambda: step(way, piece))

    def _deliver(self, way: _Way, piece: bytes) -> None:
        way.pending -= 1
        way.left -= 1
        if way.left >= 0:
            way.target.got(self, piece)

    def _end(self, way: _Way, _: bytes) -> None:
        way.pending -= 1
        way.target.hung_up(self)

    def close(self, sender: End) -> None:
        """The sender is done; what it sent still arrives, what was sent to it is lost."""
        for key, way in self._ways.items():
            if key != id(sender):
                way.left = 0
            elif not way.ended:
                way.ended = True
                self._book(way, self._end, b"")

    def cut(self) -> None:
        """The connection breaks: of what is under way, the first pieces may still arrive."""
        for way in self._ways.values():
            if not way.ended:
                way.left = min(way.left, self._rng.randint(0, way.pending))
                way.ended = True
                self._book(way, self._end, b"")
