"""Connects and binds unix sockets, whatever the length of their path, and says who is at the other side:
the user, and on Linux the process and its pid namespace.

sun_path holds about a hundred bytes. Linux reaches a longer path by the descriptor of its folder
(/proc/self/fd/N/NAME), so that the socket stays in the state root: every client that has the root mounted, under
whatever path and with whatever /tmp, finds it there, and no other user can take its name. macOS has no such paths, see
paths.StateFiles. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import errno
import os
import sys
from _socket import SOL_SOCKET

from .kernel import LINUX, is_free, process_status, read_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from _socket import socket as RawSocket

    Sock = RawSocket | socket.socket

MAX_PATH = 103  # bytes; sun_path holds 104 on macOS and 108 on Linux, with a closing NUL
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SO_PEERCRED, _UCRED_BYTES = 17, 12  # Linux, struct ucred: pid, uid, gid
_SO_PEERPIDFD = 77  # Linux 6.5
_PID_BYTES = 4
_ENDED = (errno.ESRCH, errno.EINVAL)  # says that option of a process that has ended; Linux 6.16 gives a descriptor
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


def is_orphaned(sock: Sock) -> bool:
    """Whether the process that began to listen has ended. Its socket lives on in one that the kernel doesn't name,
    perhaps a container's; a broker serves its own. Only Linux tells.
    """
    pid = _peer_pid(sock) if LINUX else 0
    if pid <= 0:
        return False
    try:
        fd = sock.getsockopt(SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        return exc.errno in _ENDED or is_free(pid)
    try:
        return "\nPid:\t-1\n" in read_small(f"/proc/self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _peer_pid(sock: Sock) -> int:
    return int.from_bytes(sock.getsockopt(SOL_SOCKET, _SO_PEERCRED, _UCRED_BYTES)[:_PID_BYTES], sys.byteorder)


# -- the process at the other side


class PeerProcess:
    """What Linux says of a peer.

    Attributes:
        pid: as we number it, 0 where its pid namespace can't be seen from ours: our own host, or a sibling.
        depth: how many pid namespaces it is in, counted from ours: 1 is beside us, 2 in a container of ours; 0 where
            it can't be told, or it is gone. name: its command, at most 15 characters. start: its start token.
    """

    __slots__ = ("depth", "name", "pid", "start")

    def __init__(self, pid: int = 0, depth: int = 0, name: str = "", start: str = "") -> None:
        self.pid = pid
        self.start = start
        self.depth = depth
        self.name = name

    @property
    def inside(self) -> bool:
        """Whether it runs in a container that we see into from outside."""
        return self.depth > 1

    def is_alive(self) -> bool:
        """Whether that very process still has its pid."""
        status = process_status(self.pid) if self.pid else None
        return status is not None and bool(self.start) and status[1] == self.start


def peer_process(sock: Sock) -> PeerProcess:
    """Look at the peer of a connected unix socket; for a client that is the process that listens. Linux only."""
    pid = _peer_pid(sock)
    if pid <= 0 or not _proc_counts_as_we_do():
        return PeerProcess()
    try:
        fd = sock.getsockopt(SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        if exc.errno in _ENDED:
            return PeerProcess(pid)
        return _described(pid, f"/proc/{pid}/status")  # an older kernel: most likely the process still has that pid
    try:
        return _described(pid, f"/proc/self/fdinfo/{fd}")
    finally:
        os.close(fd)


def _proc_counts_as_we_do() -> bool:
    """Whether /proc shows the processes of our own pid namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _described(pid: int, path: str) -> PeerProcess:
    """The process with that pid. The file `path` tells its depth, and is read last: it has another pid, or none, where
    the process ended and whatever was read before may be another's.
    """
    name = read_small(f"/proc/{pid}/comm")
    status = process_status(pid)
    rows = (line.partition(":") for line in read_small(path).splitlines())
    fields = {key: value.split() for key, _, value in rows}
    if fields.get("Pid") != [str(pid)]:
        return PeerProcess(pid)
    return PeerProcess(pid, len(fields.get("NSpid", ())), name, status[1] if status else "")
