"""connect(), and what its answer means for ownership. `mp-shim` imports this module: keep it lean.

The C module behind `socket` is used: the Python layer over it imports selectors and enum, a fifth of a shim's
start, and adds nothing that a unix stream needs here.
"""

from __future__ import annotations

import errno
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as RawSocket

from .machine.election import (
    CONNECT_DENIED,
    CONNECT_EAGAIN,
    CONNECT_ENOENT,
    CONNECT_OK,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
)

_OUTCOMES = {
    errno.ECONNREFUSED: CONNECT_REFUSED,
    errno.ENOTSOCK: CONNECT_REFUSED,  # macOS, where Linux says ECONNREFUSED: a file of that name
    errno.EPROTOTYPE: CONNECT_REFUSED,  # a socket of another kind than ours
    errno.ENOENT: CONNECT_ENOENT,
    errno.ENOTDIR: CONNECT_ENOENT,
    errno.ENAMETOOLONG: CONNECT_ENOENT,
    errno.EAGAIN: CONNECT_EAGAIN,  # the backlog is full
    errno.EINPROGRESS: CONNECT_EAGAIN,
    errno.EACCES: CONNECT_DENIED,
    errno.EPERM: CONNECT_DENIED,
}


def dial(path: str) -> tuple[str, RawSocket | None, str]:
    """Connect to a unix socket without ever blocking.

    Returns:
        one of election.CONNECTS; the connected non-blocking socket if it is CONNECT_OK; else the system's
        words. What is not in the table (no descriptors left, no memory) teaches nothing about owners:
        CONNECT_TIMEOUT.
    """
    try:
        sock = RawSocket(AF_UNIX, SOCK_STREAM)
    except OSError as exc:
        return CONNECT_TIMEOUT, None, exc.strerror or str(exc)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError as exc:
        sock.close()
        return _OUTCOMES.get(exc.errno or 0, CONNECT_TIMEOUT), None, exc.strerror or str(exc)
    return CONNECT_OK, sock, ""
