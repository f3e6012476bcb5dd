"""Where the peer of a unix socket runs: beside us, in a container, or behind an ssh connection.

A process of another pid namespace is a container's; one of ssh's own processes connects for somebody at the other end
of a forwarding. What can't be found out counts as a guest.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from ..system import kernel
from ..system.unix_socket import PeerProcess, peer_process
from .machine.session import Origin

if TYPE_CHECKING:
    import socket

# they connect for the other end of an ssh connection
_FORWARDERS = frozenset(("sshd", "sshd-session", "ssh", "dropbear", "dbclient"))
_SOL_LOCAL, _LOCAL_PEERPID = 0, 2  # macOS
_MAX_PATH = 4096


def look_at_peer(sock: socket.socket) -> PeerProcess:
    """The peer of a connected unix socket; one without a depth where nothing is known."""
    try:
        return _look_on_a_mac(sock) if kernel.MACOS else peer_process(sock)
    except (OSError, ValueError):
        return PeerProcess()


def origin_of(peer: PeerProcess) -> Origin:
    """Whether that peer is the user on this machine, or a guest."""
    return Origin.HOST if peer.depth == 1 and peer.name not in _FORWARDERS else Origin.GUEST


def has_own_mounts(peer: PeerProcess) -> bool:
    """Whether the mount table of that process is the guest's own, and not that of a process that forwards for it."""
    return peer.inside and peer.name not in _FORWARDERS


def _look_on_a_mac(sock: socket.socket) -> PeerProcess:
    """A Mac has no containers of its own: only what ssh forwards comes from elsewhere."""
    import ctypes

    pid = struct.unpack("=i", sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))[0]
    path = ctypes.create_string_buffer(_MAX_PATH)
    length = ctypes.CDLL("/usr/lib/libproc.dylib").proc_pidpath(pid, path, _MAX_PATH)
    return PeerProcess(pid, int(length > 0), os.path.basename(path.value.decode("utf-8", "replace")))
