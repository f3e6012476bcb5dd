"""Where the peer of a unix socket runs: beside us, in a container, or behind an ssh connection.

The kernel says which process connected. A process of another pid namespace is a container's; one of ssh's own
processes connects for somebody at the other end of a forwarding. What can't be found out counts as a guest.
"""

from __future__ import annotations

import os
import socket
import struct

from ..system import kernel
from ..system.kernel import read_small
from .machine.session import Origin

# they connect for the other end of an ssh connection; Linux keeps 15 characters of a name
_FORWARDERS = frozenset(("sshd", "sshd-session", "ssh", "dropbear", "dbclient"))
_SO_PEERPIDFD = 77  # Linux 6.5
_SOL_LOCAL, _LOCAL_PEERPID = 0, 2  # macOS
_MAX_PATH = 4096


def origin_of(sock: socket.socket, pid: int) -> Origin:
    """Where the peer of a connected unix socket runs. `pid`: the peer's by SO_PEERCRED, 0 if unseen."""
    try:
        near = _is_beside_us_on_a_mac(sock) if kernel.MACOS else _is_beside_us(sock, pid)
    except (OSError, ValueError):
        near = False
    return Origin.HOST if near else Origin.GUEST


def _is_beside_us(sock: socket.socket, pid: int) -> bool:
    if pid <= 0:
        return False  # of a pid namespace that we don't see into: our own host, or a container beside ours
    fields = _fields(read_small(f"/proc/{pid}/status"))
    if _fields(read_small("/proc/self/status")).get("Pid") != str(os.getpid()):
        return False  # /proc shows another namespace's processes
    try:
        fd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return _judge(fields)  # an older kernel: the process that has the pid now is most likely the one that connected
    try:
        alive = _fields(read_small(f"/proc/self/fdinfo/{fd}")).get("Pid") == str(pid)
    finally:
        os.close(fd)
    return alive and _judge(fields)  # alive after we looked: so it was the process that we looked at


def _judge(fields: dict[str, str]) -> bool:
    """By the lines of /proc/PID/status: `NSpid` has one number for each pid namespace from ours down."""
    return len(fields.get("NSpid", "").split()) == 1 and fields.get("Name", "") not in _FORWARDERS


def _fields(text: str) -> dict[str, str]:
    rows = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in rows}


def _is_beside_us_on_a_mac(sock: socket.socket) -> bool:
    """A Mac has no containers of its own: only what ssh forwards comes from elsewhere."""
    import ctypes

    pid = struct.unpack("=i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))[0]
    path = ctypes.create_string_buffer(_MAX_PATH)
    length = ctypes.CDLL("/usr/lib/libproc.dylib").proc_pidpath(pid, path, _MAX_PATH)
    return length > 0 and os.path.basename(path.value.decode("utf-8", "replace")) not in _FORWARDERS
