"""Send a few bytes on a connected socket and read the answer, by a deadline. Imported late: it needs `select`."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from _socket import socket as RawSocket
    from collections.abc import Callable

    from ..system.clock import Deadline

_MAX_ANSWER = 32 << 20
_CHUNK = 1 << 16


def one_line(said: bytearray) -> bool:
    """Whether a whole line has arrived."""
    return said.endswith(b"\n")


def exchange(
    sock: RawSocket | socket.socket,
    request: bytes,
    deadline: Deadline,
    *,
    complete: Callable[[bytearray], bool] = one_line,
    limit: int = _MAX_ANSWER,
) -> bytes | None:
    """Send `request`; read until the answer is `complete`, the other side leaves, or `limit` bytes are there.

    Args:
        sock: non-blocking. It stays open.

    Returns:
        all that was read; None where the deadline came first.

    Raises:
        OSError: the connection broke.
    """
    view = memoryview(request)
    while view:
        if not _wait(sock.fileno(), select.POLLOUT, deadline):
            return None
        view = view[sock.send(view) :]
    said = bytearray()
    while _wait(sock.fileno(), select.POLLIN, deadline):
        data = sock.recv(_CHUNK)
        said += data
        if not data or len(said) > limit or complete(said):
            return bytes(said)
    return None


def _wait(fd: int, event: int, deadline: Deadline) -> bool:
    poller = select.poll()
    poller.register(fd, event)
    return bool(poller.poll(deadline.remaining() * 1000 + 1))
