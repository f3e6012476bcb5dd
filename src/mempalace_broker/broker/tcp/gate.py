"""What a TCP connection goes through before it is a session: cheap for us, whoever is there.

Until it has proved that it knows the token a connection is a socket and a small machine, no session: at most `MOST`
of them at a time, each with `HANDSHAKE_S` in all and lines of 1 KiB. Where more come, those go first that were
refused already, then the oldest that have said nothing, so a good client, which speaks at once, is not the one.

A refusal is answered late, and later with every failure of that address. A good proof is never made to wait: behind
the proxy of a virtual machine all containers have one address, and must not pay for each other.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from ...protocol.tcp_auth import NONCE_BYTES, AuthState, ServerSide
from .tally import Tally

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable

MOST = 64
HANDSHAKE_S = 5.0
ACCEPTS = 16  # of one turn of the loop: sessions at work come between them
_READ = 2048
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_PAUSE_S = 1.0

# what becomes of one that does not get in, beside what the machine says
SILENT = "silent"  # it ran out of time without a line
SLOW = "too slow"
LEFT = "left"
CROWDED = "crowded out"


class Admit(Protocol):
    """Takes a socket that has proved itself, with the bytes that came behind the proof."""

    def __call__(self, sock: socket.socket, rest: bytes, address: str) -> None:
        """`address`: of the client, for people."""


class _Guest:
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
        """Who goes first where there is no room."""
        return (0 if self.parked else 2 if self.side.heard else 1), self.number


class Gate:
    """The door of one listening socket.

    Args:
        listener: listening, non-blocking; closed by `close`.
        token: gives the token as it is now.
        admit: takes those who have proved themselves.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        loop: asyncio.AbstractEventLoop,
        token: Callable[[], str],
        admit: Admit,
        tally: Tally,
        log: logging.Logger,
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._token = token
        self._admit = admit
        self._tally = tally
        self._log = log
        self._guests: OrderedDict[int, _Guest] = OrderedDict()
        self._count = 0
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(listener.fileno(), self._accept)

    @property
    def waiting(self) -> int:
        """How many have not proved themselves yet."""
        return len(self._guests)

    def close(self) -> None:
        """Listen no more; whoever has not proved himself is sent away."""
        if self._listener.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self.clear()

    def clear(self) -> None:
        """Send away whoever has not proved himself; what they have begun counts no more."""
        for guest in list(self._guests.values()):
            self._forget(guest)
            guest.sock.close()

    # -- who comes

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, where = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # gone again before we looked
                continue
            except OSError as exc:
                self._trouble(exc)
                return
            self._welcome(sock, str(where[0]))

    def _trouble(self, exc: OSError) -> None:
        """No descriptors left, most likely: the listener stays readable, so look away for a while."""
        if exc.errno not in _NO_ROOM:
            self._log.error("cannot accept TCP connections: %s", exc)
        self._tally.note("(nobody)", f"not accepted ({exc.strerror})")
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(_NO_ROOM_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _welcome(self, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        if len(self._guests) >= MOST:
            self._end(min(self._guests.values(), key=lambda guest: guest.rank), CROWDED)
        self._count += 1
        guest = _Guest(sock, address, ServerSide(self._token(), os.urandom(NONCE_BYTES)), self._count)
        self._guests[guest.number] = guest
        guest.timer = self._loop.call_later(HANDSHAKE_S, self._time_is_up, guest)
        self._loop.add_reader(sock.fileno(), self._read, guest)
        self._read(guest)  # a client speaks at once: most likely it has

    # -- what they say

    def _read(self, guest: _Guest) -> None:
        try:
            data = guest.sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end(guest, LEFT)
            return
        said = guest.side.feed(data)
        if guest.side.state == AuthState.FAILED:
            self._park(guest, said)
        elif said and not _send(guest.sock, said):
            self._end(guest, LEFT)
        elif guest.side.state == AuthState.PROVED:
            self._forget(guest)
            self._admit(guest.sock, guest.side.rest, guest.address)

    def _park(self, guest: _Guest, answer: bytes) -> None:
        """Refused. It is told so later; until then it is only a socket that nobody reads."""
        self._loop.remove_reader(guest.sock.fileno())
        if guest.timer is not None:
            guest.timer.cancel()
        guest.parked = True
        delay = self._tally.note(guest.address, guest.side.failure)
        guest.timer = self._loop.call_later(delay, self._answer, guest, answer)

    def _answer(self, guest: _Guest, answer: bytes) -> None:
        _send(guest.sock, answer)
        self._end(guest, "")

    def _time_is_up(self, guest: _Guest) -> None:
        self._end(guest, SLOW if guest.side.heard else SILENT)

    # -- how they go

    def _end(self, guest: _Guest, why: str) -> None:
        self._forget(guest)
        guest.sock.close()
        if why and not guest.parked:
            self._tally.note(guest.address, why)

    def _forget(self, guest: _Guest) -> None:
        if guest.timer is not None:
            guest.timer.cancel()
            guest.timer = None
        self._guests.pop(guest.number, None)
        self._loop.remove_reader(guest.sock.fileno())


def _send(sock: socket.socket, data: bytes) -> bool:
    """Whether all of it went: an empty send buffer takes our few hundred bytes, or the connection is none."""
    try:
        return sock.send(data) == len(data)
    except OSError:
        return False
