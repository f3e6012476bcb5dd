"""Connects and binds unix sockets, whatever the length of their path, and says whose the other side is.

sun_path holds about a hundred bytes. Linux reaches a longer path by the descriptor of its folder
(/proc/self/fd/N/NAME), so that the socket stays in the state root: every client that has the root mounted, under
whatever path and with whatever /tmp, finds it there, and no other user can take its name. macOS has no such paths, see
paths.socket_path. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os
import sys
from _socket import SOL_SOCKET

from .kernel import LINUX

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from _socket import socket as RawSocket

    Sock = RawSocket | socket.socket

MAX_PATH = 103  # bytes; sun_path holds 104 on macOS and 108 on Linux, with a closing NUL
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SO_PEERCRED, _UCRED_BYTES = 17, 12  # Linux, struct ucred: pid, uid, gid
_LOCAL_PEERCRED, _XUCRED_BYTES = 1, 76  # macOS, struct xucred: version, uid, number of groups, 16 groups


def fits(path: str) -> bool:
    """Whether a socket's path is short enough for the kernel."""
    return len(os.fsencode(path)) <= MAX_PATH


def connect(sock: Sock, path: str) -> None:
    """Connect to a path of any length. Raises OSError as the system reports it."""
    if fits(path) or not LINUX:
        sock.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, _FOLDER)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def bind(sock: Sock, folder: int, name: str, path: str) -> None:
    """Bind to a name in an open folder; `path` is the same in one, for systems that have no other way.

    Raises:
        OSError: as the system reports it.
    """
    sock.bind(f"/proc/self/fd/{folder}/{name}" if LINUX else path)


def peer_uid(sock: Sock) -> int:
    """The user at the other side of a connected unix socket; for a client, the one that listens. Raises OSError."""
    if LINUX:
        data = sock.getsockopt(SOL_SOCKET, _SO_PEERCRED, _UCRED_BYTES)
    else:
        data = sock.getsockopt(0, _LOCAL_PEERCRED, _XUCRED_BYTES)
    return int.from_bytes(data[4:8], sys.byteorder)


def serves_us(sock: Sock, path: str) -> bool:
    """Whether the listener that we have connected to runs as us or as root.

    Where we are root, its user may also be the owner of the socket's folder (sudo, containers).
    """
    try:
        uid = peer_uid(sock)
        me = os.geteuid()
        return uid in (me, 0) or (me == 0 and uid == os.stat(os.path.dirname(path)).st_uid)
    except OSError:
        return False
