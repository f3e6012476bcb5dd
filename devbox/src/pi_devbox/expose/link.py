"""One relayed connection: two sockets, and one thread that polls them both.

A thread for each connection, because a long transfer on one must not delay a keystroke on another, and because system
calls run in parallel; one for both directions, because that is faster than two on a machine with something else to do
(measured: benchmarks/expose.py). Bytes pass through a buffer; they are never looked at.

How a direction ends decides how the other socket learns of it:

    source says end of file     the sink is told the same, the other direction goes on (half-close)
    source was reset            the sink is reset too: what was cut off must not look complete
    sink takes no more          nothing to do here: the direction that reads from it hears how it ended
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct

SMALL = 16 * 1024  # first buffer of a direction: most carry requests, or keystrokes
LARGE = 512 * 1024  # where buffers that are filled grow to
CONNECT_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))  # a laptop that went to sleep


def dial(port: int) -> socket.socket | None:
    """A connection to 127.0.0.1:port, or None where nobody takes it."""
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S)
    except OSError:  # refused, or its backlog is full: not there for us
        return None
    if is_self(sock):
        reset(sock)
        return None
    sock.settimeout(None)
    return sock


def is_self(sock: socket.socket) -> bool:
    """Whether it is connected with itself: the kernel may lend a caller the very port that it calls."""
    return bool(sock.getsockname() == sock.getpeername())


def reset(sock: socket.socket) -> None:
    """Close so that the peer sees an error, not an end."""
    with contextlib.suppress(OSError):  # it is gone already: so much the better
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


def prepare(sock: socket.socket) -> None:
    """Small messages leave at once, and a peer that vanished is noticed within minutes."""
    with contextlib.suppress(OSError):  # a socket that was reset meanwhile takes no options; its first read says so
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Direction:
    """Bytes from one socket into another; neither blocks.

    Attributes:
        source, sink: the sockets. waits: bytes were read that `sink` does not take yet; nothing is read meanwhile.
        ended: nothing will be read any more. broken: because `source` was reset. refused: `sink` was reset, which the
            kernel says once, here or to who reads from it. opposite: the direction from `sink` to `source`.
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
        """Read once and pass it on. True where `waits` or `ended` has changed."""
        try:
            count = self._receive(self._buffer)
        except BlockingIOError:  # poll was wrong, as it may be
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
        """Pass on what waits. True where `waits` or `ended` has changed."""
        try:
            self._rest = self._rest[self._send(self._rest) :]
        except BlockingIOError:
            return False
        except OSError as exc:
            return self._give_up(exc)
        self.waits = bool(self._rest)
        return not self.waits

    def _finish(self) -> bool:
        """`source` has said end of file, or was reset and told that to `opposite`."""
        self.ended, self.broken = True, self.opposite.refused
        if not self.broken:
            with contextlib.suppress(OSError):  # it left first: nobody to tell
                self.sink.shutdown(socket.SHUT_WR)
        return True

    def _give_up(self, exc: OSError) -> bool:
        """`sink` takes no more; what it had to say is still to be read, by `opposite`."""
        self.waits, self.ended = False, True
        self.refused = self.refused or exc.errno == errno.ECONNRESET
        return True


class Link:
    """Two connected sockets, relayed into each other until both directions have ended."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._poller = select.poll()
        self._masks: dict[int, int] = {}
        there, back = Direction(near, far), Direction(far, near)
        there.opposite, back.opposite = back, there
        # by descriptor: the direction that reads from it, the one that writes to it
        self._ends = {near.fileno(): (there, back), far.fileno(): (back, there)}
        for sock in (near, far):
            prepare(sock)
            sock.setblocking(False)
        self._watch()

    def run(self) -> None:
        """Relay until both directions have ended; then both sockets are closed."""
        poll, readable = self._poller.poll, select.POLLIN
        moves = {number: reading.move for number, (reading, _) in self._ends.items()}
        try:
            while self._watch():
                changed = False
                while not changed:
                    for number, events in poll():
                        # nearly always there is something to read, and nothing else
                        changed = (moves[number]() if events == readable else self._react(number, events)) or changed
        finally:
            for reading, writing in self._ends.values():
                (reset if writing.broken else socket.socket.close)(reading.source)

    def cut(self) -> None:
        """End both directions, from another thread."""
        for reading, _ in self._ends.values():
            with contextlib.suppress(OSError):  # not connected any more
                reading.source.shutdown(socket.SHUT_RDWR)

    def _react(self, number: int, events: int) -> bool:
        """Do what poll says is possible. True where what to wait for may have changed."""
        reading, writing = self._ends[number]
        changed = writing.waits and writing.flush()
        if events & ~select.POLLOUT and not reading.waits and not reading.ended:
            changed = reading.move() or changed
        elif events & (select.POLLERR | select.POLLHUP) and not writing.ended:  # reset, and nothing to read would tell
            reading.ended = reading.broken = writing.ended = True
        return changed or reading.ended

    def _watch(self) -> bool:
        """Wait for what each socket can do for us next. False where there is nothing left to do."""
        if all(reading.ended or writing.broken for reading, writing in self._ends.values()):
            return False
        for number, (reading, writing) in self._ends.items():
            mask = 0 if reading.waits or reading.ended else select.POLLIN
            if writing.waits:
                mask |= select.POLLOUT
            if mask or not writing.ended:  # 0 still tells of a reset
                if mask != self._masks.get(number, -1):
                    self._poller.register(number, mask)
                    self._masks[number] = mask
            elif self._masks.pop(number, None) is not None:
                self._poller.unregister(number)  # shut down in both directions, it would wake us for ever
        return True
