"""The handshake that a TCP connection has to pass before it becomes a session; cheap for us, whoever connects.

Until it has proved that it knows the token, a connection is a socket and a small machine: at most `MOST` of them at a
time, each with `HANDSHAKE_S` in all and lines of 1 KiB. If more connect, the refused ones are dropped first, then the
oldest silent ones, so clients that speak at once are never dropped first.

The answer to a refused client is delayed, longer with every failure of its address. A good proof is never delayed:
behind the proxy of a virtual machine all containers share one address.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING

from ...protocol.tcp_auth import NONCE_BYTES, AuthState, ServerSide
from ..admission import SHORTAGES
from .refusals import Refusals

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable

    Admit = Callable[[socket.socket, bytes, str], None]

MOST = 64
HANDSHAKE_S = 5.0
ACCEPTS = 16  # of one turn of the loop: sessions at work come between them
_READ = 2048
_NO_ROOM_PAUSE_S = 1.0

# why a client was not admitted, beside the reasons of the handshake itself
SILENT = "silent"  # it ran out of time without a line
SLOW = "too slow"
LEFT = "left"
CROWDED = "crowded out"


class _Handshake:
    """One connection that has not proved itself."""

    __slots__ = ("address", "number", "parked", "side", "sock", "timer")

    def __init__(self, sock: socket.socket, address: str, side: ServerSide, number: int) -> None:
        self.sock = sock
        self.address = address
        self.side = side
        self.number = number
        self.parked = False  # refused; its answer is due later
        self.timer: asyncio.TimerHandle | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """Who is dropped first when there is no room: the lowest."""
        return (0 if self.parked else 2 if self.side.heard else 1), self.number


class Gate:
    """Accepts the connections of one listening socket, and admits those that prove themselves.

    Args:
        listener: listening, non-blocking; closed by `close`.
        token: gives the token as it is now.
        admit: takes their sockets, the bytes that came behind the proof, and the address, for people.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        loop: asyncio.AbstractEventLoop,
        token: Callable[[], str],
        admit: Admit,
        refusals: Refusals,
        log: logging.Logger,
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._token = token
        self._admit = admit
        self._refusals = refusals
        self._log = log
        self._handshakes: OrderedDict[int, _Handshake] = OrderedDict()
        self._count = 0
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(listener.fileno(), self._accept)

    @property
    def waiting(self) -> int:
        """How many connections have not proved themselves yet."""
        return len(self._handshakes)

    def close(self) -> None:
        """Stop listening, and drop the connections that have not proved themselves."""
        if self._listener.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self.clear()

    def clear(self) -> None:
        """Drop the connections that have not proved themselves."""
        for handshake in list(self._handshakes.values()):
            self._forget(handshake)
            handshake.sock.close()

    # -- accepting

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, where = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # gone again before we looked
                continue
            except OSError as exc:
                self._accept_failed(exc)
                return
            self._begin(sock, str(where[0]))

    def _accept_failed(self, exc: OSError) -> None:
        """No descriptors left, most likely: the listener stays readable, so pause for a while."""
        if exc.errno not in SHORTAGES:
            self._log.error("cannot accept TCP connections: %s", exc)
        self._refusals.note("(nobody)", f"not accepted ({exc.strerror})")
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(_NO_ROOM_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _begin(self, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        if len(self._handshakes) >= MOST:
            self._end(min(self._handshakes.values(), key=lambda handshake: handshake.rank), CROWDED)
        self._count += 1
        side = ServerSide(self._token(), os.urandom(NONCE_BYTES), self._listener.getsockname()[1])
        handshake = _Handshake(sock, address, side, self._count)
        self._handshakes[handshake.number] = handshake
        handshake.timer = self._loop.call_later(HANDSHAKE_S, self._time_is_up, handshake)
        self._loop.add_reader(sock.fileno(), self._read, handshake)
        self._read(handshake)  # most likely it has spoken already

    # -- the handshake

    def _read(self, handshake: _Handshake) -> None:
        try:
            data = handshake.sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end(handshake, LEFT)
            return
        said = handshake.side.feed(data)
        if handshake.side.state == AuthState.FAILED:
            self._park(handshake, said)
        elif said and not _send(handshake.sock, said):
            self._end(handshake, LEFT)
        elif handshake.side.state == AuthState.PROVED:
            self._forget(handshake)
            self._admit(handshake.sock, handshake.side.rest, handshake.address)

    def _park(self, handshake: _Handshake, answer: bytes) -> None:
        """Refuse it, and say so later; until then its socket is not read."""
        self._loop.remove_reader(handshake.sock.fileno())
        if handshake.timer is not None:
            handshake.timer.cancel()
        handshake.parked = True
        delay = self._refusals.note(handshake.address, handshake.side.failure)
        handshake.timer = self._loop.call_later(delay, self._answer, handshake, answer)

    def _answer(self, handshake: _Handshake, answer: bytes) -> None:
        _send(handshake.sock, answer)
        self._end(handshake, "")

    def _time_is_up(self, handshake: _Handshake) -> None:
        self._end(handshake, SLOW if handshake.side.heard else SILENT)

    # -- the end

    def _end(self, handshake: _Handshake, why: str) -> None:
        self._forget(handshake)
        handshake.sock.close()
        if why and not handshake.parked:
            self._refusals.note(handshake.address, why)

    def _forget(self, handshake: _Handshake) -> None:
        if handshake.timer is not None:
            handshake.timer.cancel()
            handshake.timer = None
        self._handshakes.pop(handshake.number, None)
        self._loop.remove_reader(handshake.sock.fileno())


def _send(sock: socket.socket, data: bytes) -> bool:
    """Whether all was sent: an empty send buffer takes our few hundred bytes, unless the connection is broken."""
    try:
        return sock.send(data) == len(data)
    except OSError:
        return False
