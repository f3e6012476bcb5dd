"""Options of a TCP connection between client and broker. `mp-shim` imports this module where it uses TCP."""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as RawSocket

_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_USER_TIMEOUT_MS = 60_000  # a peer that is gone without a word is noticed by then, whatever we had sent


def set_tcp_options(sock: RawSocket) -> None:
    """Send at once, and notice a silent death within a minute or two, whatever the system's defaults."""
    try:
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS)):
            option = getattr(_socket, name, None)
            if option is not None:
                sock.setsockopt(_socket.IPPROTO_TCP, option, value)
    except OSError:
        return  # on macOS, where the peer has left already: the next read says so
