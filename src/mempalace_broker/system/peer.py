"""The process at the other end of a unix socket, as the kernel knows it: which one, and in which pid namespace.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os
import sys
from _socket import SOL_SOCKET

from .kernel import process_status, read_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from _socket import socket as RawSocket

_SO_PEERCRED = 17  # Linux
_SO_PEERPIDFD = 77  # Linux 6.5
_PID_BYTES = 4


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


def peer_process(sock: RawSocket | socket.socket) -> PeerProcess:
    """Look at the peer of a connected unix socket; for a client that is the process that listens. Linux only."""
    pid = int.from_bytes(sock.getsockopt(SOL_SOCKET, _SO_PEERCRED, 3 * _PID_BYTES)[:_PID_BYTES], sys.byteorder)
    if pid <= 0 or _fields("/proc/self/status").get("Pid") != str(os.getpid()):
        return PeerProcess()  # or /proc shows another namespace's processes
    fields = _fields(f"/proc/{pid}/status")
    status = process_status(pid)
    if not _is_alive(sock, pid):  # after we looked: so it was the process that we looked at
        return PeerProcess(pid)
    return PeerProcess(pid, len(fields.get("NSpid", "").split()), fields.get("Name", ""), status[1] if status else "")


def _is_alive(sock: RawSocket | socket.socket, pid: int) -> bool:
    """Whether the process that connected still has that pid."""
    try:
        fd = sock.getsockopt(SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return True  # an older kernel doesn't say; most likely it has
    try:
        return _fields(f"/proc/self/fdinfo/{fd}").get("Pid") == str(pid)
    finally:
        os.close(fd)


def _fields(path: str) -> dict[str, str]:
    """The lines "name: value" of a file of /proc."""
    rows = (line.partition(":") for line in read_small(path).splitlines())
    return {name: value.strip() for name, _, value in rows}
