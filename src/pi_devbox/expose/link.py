"""One relayed connection: two sockets, and for each direction a thread that blocks.

Threads, because that is what is fast in Python: a direction costs two system calls a message and no event loop between
them, as in a relay written in C. Bytes pass through one buffer; they are never looked at.

How a direction ends decides how the other socket learns of it:

    source says end of file     the sink is told the same, the other direction goes on (half-close)
    source was reset            the sink is reset too: what was cut off must not look complete
    sink takes no more          nothing to do here: the direction that reads from it hears how it ended
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

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
    if sock.getsockname() == sock.getpeername():  # the kernel lent us that very port: we called ourselves
        reset(sock)
        return None
    sock.settimeout(None)
    return sock


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


class Link:
    """Two connected sockets, relayed into each other until both directions have ended; then both are closed."""

    def __init__(self, near: socket.socket, far: socket.socket, ended: Callable[[], None]) -> None:
        """`ended` is called once, by the thread that ends last."""
        self.near = near
        self.far = far
        self._ended = ended
        self._directions = 2
        self._lock = threading.Lock()
        for sock in (near, far):
            prepare(sock)

    def run(self) -> None:
        """Relay both directions, one of them in this thread. Returns when that one has ended.

        Raises:
            RuntimeError: no thread can be started; both connections were reset.
        """
        back = threading.Thread(target=self._carry, args=(self.far, self.near), name="studio-expose-back", daemon=True)
        try:
            back.start()
        except RuntimeError:
            reset(self.near)
            reset(self.far)
            self._ended()
            raise
        self._carry(self.near, self.far)

    def cut(self) -> None:
        """End both directions from another thread."""
        for sock in (self.near, self.far):
            with contextlib.suppress(OSError):  # not connected any more
                sock.shutdown(socket.SHUT_RDWR)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            if _copy(source, sink):
                with contextlib.suppress(OSError):  # it left first: nobody to tell
                    sink.shutdown(socket.SHUT_WR)
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._directions -= 1
            last = not self._directions
        if last:
            self.near.close()
            self.far.close()
            self._ended()


def _copy(source: socket.socket, sink: socket.socket) -> bool:
    """Copy until one of them ends. True: `source` came to an orderly end, and `sink` is to be told."""
    buffer = memoryview(bytearray(SMALL))
    while True:
        try:
            count = source.recv_into(buffer)
        except OSError:
            _break_off(sink)
            return False
        if not count:
            return True
        try:
            sink.sendall(buffer[:count])
        except OSError:  # what it had to say is still to be read, by the other direction
            return False
        if count == len(buffer) < LARGE:
            buffer = memoryview(bytearray(2 * count))


def _break_off(sink: socket.socket) -> None:
    """Let the coming close reset it, and wake the direction that waits for it to say something."""
    with contextlib.suppress(OSError):  # gone itself
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sink.shutdown(socket.SHUT_RD)
