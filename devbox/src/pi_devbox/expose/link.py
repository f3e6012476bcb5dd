"""One relayed connection: two sockets, and one thread that polls them both.

Each connection has a thread, because a long transfer on one must not delay a keystroke on another, and because system
calls run in parallel. One thread serves both directions: on a busy machine that is faster than two (measured:
benchmarks/expose.py). Bytes pass through a buffer unread.

How a direction ends decides how the other socket learns of it:

    source sent end of file     pass it on to the sink; the other direction goes on (half-close)
    source was reset            reset the sink too: truncated data must not look complete
    sink takes no more          nothing to do here: the direction that reads from it learns how it ended
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct

SMALL = 16 * 1024  # the first buffer of a direction: most carry requests, or keystrokes
LARGE = 512 * 1024  # the size up to which a filled buffer grows
CONNECT_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))  # a laptop that went to sleep


def dial(port: int, limit: float = CONNECT_S) -> socket.socket:
    """Connect to 127.0.0.1:port.

    Raises:
        TimeoutError: something listens, but accepts nothing within `limit` seconds.
        OSError: nothing listens.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=limit)
    if is_self(sock):
        reset(sock)
        raise ConnectionRefusedError
    sock.settimeout(None)
    return sock


def is_self(sock: socket.socket) -> bool:
    """Whether `sock` is connected to itself: the kernel may pick the very port that it connects to as its own."""
    return bool(sock.getsockname() == sock.getpeername())


def reset(sock: socket.socket) -> None:
    """Close `sock` so that the peer sees an error instead of an end of file."""
    with contextlib.suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


def prepare(sock: socket.socket) -> None:
    """Send small messages at once, and notice within minutes that a peer vanished."""
    with contextlib.suppress(OSError):  # a socket that was reset takes no options; its first read reports that
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Direction:
    """Moves bytes from one socket to another; neither blocks.

    Attributes:
        source, sink: the sockets. waits: `sink` does not take bytes that were read; nothing more is read meanwhile.
        ended: nothing more will be read. broken: it ended because `source` was reset. refused: `sink` was reset, which
            the kernel reports only once, here or to the opposite direction. opposite: from `sink` to `source`.
    """

    __slots__ = (
        "_buffer",
        "_receive",
        "_rest",
        "_send",
        "broken",
        "ended",
        "opposite",
        "refused",
        "sink",
        "source",
        "waits",
    )
    opposite: Direction

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.waits = self.ended = self.broken = self.refused = False
        self._receive = source.recv_into
        self._send = sink.send
        self._buffer = memoryview(bytearray(SMALL))
        self._rest = self._buffer[:0]

    def move(self) -> bool:
        """Read once and pass it on. Return whether `waits` or `ended` has changed."""
        try:
            count = self._receive(self._buffer)
        except BlockingIOError:  # a spurious wake-up
            return False
        except OSError:
            self.ended = self.broken = True
            return True
        if not count:
            return self._finish()
        try:
            sent = self._send(self._buffer[:count])
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            return self._give_up(exc)
        if sent < count:
            self._rest = self._buffer[sent:count]
            self.waits = True
        elif count == len(self._buffer) < LARGE:
            self._buffer = memoryview(bytearray(2 * count))
        return self.waits

    def flush(self) -> bool:
        """Pass on the waiting bytes. Return whether `waits` or `ended` has changed."""
        try:
            self._rest = self._rest[self._send(self._rest) :]
        except BlockingIOError:
            return False
        except OSError as exc:
            return self._give_up(exc)
        self.waits = bool(self._rest)
        return not self.waits

    def _finish(self) -> bool:
        """Handle end of file from `source`; it may stand for a reset that was reported to `opposite`."""
        self.ended, self.broken = True, self.opposite.refused
        if not self.broken:
            with contextlib.suppress(OSError):  # it closed first
                self.sink.shutdown(socket.SHUT_WR)
        return True

    def _give_up(self, exc: OSError) -> bool:
        """Handle a `sink` that takes no more; `opposite` still reads what it sent."""
        self.waits, self.ended = False, True
        self.refused = self.refused or exc.errno == errno.ECONNRESET
        return True


class Link:
    """Relays two connected sockets into each other until both directions have ended."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._poller = select.poll()
        self._masks: dict[int, int] = {}
        there, back = Direction(near, far), Direction(far, near)
        there.opposite, back.opposite = back, there
        # by descriptor: the direction that reads from it, and the one that writes to it
        self._ends = {near.fileno(): (there, back), far.fileno(): (back, there)}
        for sock in (near, far):
            prepare(sock)
            sock.setblocking(False)
        self._watch()

    def run(self) -> None:
        """Relay until both directions have ended, then close both sockets."""
        poll, readable = self._poller.poll, select.POLLIN
        moves = {number: reading.move for number, (reading, _) in self._ends.items()}
        try:
            while self._watch():
                changed = False
                while not changed:
                    for number, events in poll():
                        # nearly always a socket is just readable
                        changed = (moves[number]() if events == readable else self._react(number, events)) or changed
        finally:
            for reading, writing in self._ends.values():
                (reset if writing.broken else socket.socket.close)(reading.source)

    def cut(self) -> None:
        """End both directions, from another thread."""
        for reading, _ in self._ends.values():
            with contextlib.suppress(OSError):  # no longer connected
                reading.source.shutdown(socket.SHUT_RDWR)

    def _react(self, number: int, events: int) -> bool:
        """Handle the events of one socket. Return whether the events to wait for may have changed."""
        reading, writing = self._ends[number]
        changed = writing.waits and writing.flush()
        if events & ~select.POLLOUT and not reading.waits and not reading.ended:
            changed = reading.move() or changed
        elif events & (select.POLLERR | select.POLLHUP) and not writing.ended:  # a reset that no read would report
            reading.ended = reading.broken = writing.ended = True
        return changed or reading.ended

    def _watch(self) -> bool:
        """Update the events to wait for. Return False once nothing is left to do."""
        if all(reading.ended or writing.broken for reading, writing in self._ends.values()):
            return False
        for number, (reading, writing) in self._ends.items():
            mask = 0 if reading.waits or reading.ended else select.POLLIN
            if writing.waits:
                mask |= select.POLLOUT
            if mask or not writing.ended:  # 0 still reports a reset
                if mask != self._masks.get(number, -1):
                    self._poller.register(number, mask)
                    self._masks[number] = mask
            elif self._masks.pop(number, None) is not None:
                self._poller.unregister(number)  # shut down in both directions, it would wake poll at once, for ever
        return True
