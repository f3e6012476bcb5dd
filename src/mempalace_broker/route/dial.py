"""connect(), and what its answer means for ownership. `mp-shim` imports this module: keep it lean.

The C module behind `socket` is used: the Python layer over it imports selectors and enum, a fifth of a shim's
start, and adds nothing that a unix stream needs here.
"""

from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as RawSocket

from ..errors import BrokerUnavailable
from ..system.unix_socket import connect, is_orphaned, serves_us
from .machine.election import (
    CONNECT_DENIED,
    CONNECT_EAGAIN,
    CONNECT_ENOENT,
    CONNECT_OK,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    strongest,
)

_OUTCOMES = {
    errno.ECONNREFUSED: CONNECT_REFUSED,
    errno.ENOTSOCK: CONNECT_REFUSED,  # macOS, where Linux says ECONNREFUSED: a file of that name
    errno.EPROTOTYPE: CONNECT_REFUSED,  # a socket of another kind than ours
    errno.ENOENT: CONNECT_ENOENT,
    errno.ENOTDIR: CONNECT_ENOENT,
    errno.ENAMETOOLONG: CONNECT_ENOENT,
    errno.ELOOP: CONNECT_ENOENT,
    errno.EAGAIN: CONNECT_EAGAIN,  # the backlog is full
    errno.EINPROGRESS: CONNECT_EAGAIN,
    errno.EACCES: CONNECT_DENIED,
}
# what a sandbox says to a process that may use no unix socket: of socket() all of them, of connect() the first
_FORBIDDEN = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOSYS)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine.election import ConnectSeen


class Dialled:
    """What connect() said.

    Attributes:
        outcome: of connect(). path: the socket that accepted, else the one whose outcome this is.
        sock: connected and non-blocking where `outcome` is CONNECT_OK, else None.
        why: the system's words, "" where it accepted.
    """

    __slots__ = ("outcome", "path", "sock", "why")

    def __init__(self, outcome: ConnectSeen, path: str, sock: RawSocket | None = None, why: str = "") -> None:
        self.outcome = outcome
        self.path = path
        self.sock = sock
        self.why = why

    @property
    def nobody(self) -> bool:
        """Whether the kernel says that nobody listens there."""
        return self.outcome in (CONNECT_REFUSED, CONNECT_ENOENT)


def dial(path: str) -> Dialled:
    """Connect to a unix socket without ever blocking. A listener of another user counts as nobody.

    An error that is not in the table (no descriptors left, no memory) teaches nothing about owners: CONNECT_TIMEOUT.

    Raises:
        BrokerUnavailable: a sandbox forbids unix sockets; waiting or starting a broker would not help.
    """
    try:
        sock = RawSocket(AF_UNIX, SOCK_STREAM)
    except OSError as exc:
        if exc.errno in _FORBIDDEN:
            raise _forbidden(path, exc) from exc
        return Dialled(CONNECT_TIMEOUT, path, None, exc.strerror or str(exc))
    try:
        sock.setblocking(False)
        connect(sock, path)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EPERM:
            raise _forbidden(path, exc) from exc
        return Dialled(_OUTCOMES.get(exc.errno or 0, CONNECT_TIMEOUT), path, None, exc.strerror or str(exc))
    if serves_us(sock, path):
        return Dialled(CONNECT_OK, path, sock)
    sock.close()  # before a byte is said: whoever took that name, our broker is not there
    return Dialled(CONNECT_REFUSED, path, None, "another user listens there")


def _forbidden(path: str, exc: OSError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"this process may not use unix sockets ({exc.strerror or exc}), and so it can't reach {path}.",
        hint=f"let your agent's sandbox allow unix sockets, or {path} at least",
    )


def _dial_brokers(path: str) -> Dialled:
    """Dial a name that a broker may have bound. A link, and a socket whose own process has ended, count as nobody: no
    broker makes those, and a container could lead us anywhere, or hide behind them.
    """
    if os.path.islink(path):
        return Dialled(CONNECT_REFUSED, path, None, "it is a link")
    found = dial(path)
    if found.sock is None or not is_orphaned(found.sock):
        return found
    found.sock.close()
    return Dialled(CONNECT_REFUSED, path, None, "the process that began to listen there has ended")


def dial_any(paths: list[str], *, named: bool = False) -> Dialled:
    """Dial the sockets where a broker may be, at least one, in order, until one accepts; else the strongest sign of an
    owner among them. `named`: by the user, whose own links and relays are followed.
    """
    refusals: list[Dialled] = []
    for path in paths:
        found = dial(path) if named else _dial_brokers(path)
        if found.sock is not None:
            return found
        refusals.append(found)
    outcome = strongest([refusal.outcome for refusal in refusals])
    return [refusal for refusal in refusals if refusal.outcome == outcome][-1]
