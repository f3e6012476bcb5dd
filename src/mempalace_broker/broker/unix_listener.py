"""The unix socket: bound under the owner lock, and removed only while the name is still ours.

asyncio would take over the name of a live listener without an error (cpython#121252), so it gets a bound socket.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from ..errors import StateRootError
from ..system.atomic_files import unlink_quietly

BACKLOG = 512


class Name(NamedTuple):
    """A socket's name in the filesystem, as it was when we bound it."""

    path: str
    dev: int
    ino: int

    def intact(self) -> bool:
        """Whether the name still leads to our socket."""
        try:
            now = os.lstat(self.path)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (self.dev, self.ino)


def bind_unix(path: str) -> tuple[socket.socket, Name]:
    """Bind a listening socket, 0600. The caller holds the owner lock, so an older file of that name is stale.

    Raises:
        StateRootError: the name can't be bound; says why.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        unlink_quietly(path)
        listener.bind(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        found = os.lstat(path)
    except OSError as exc:
        listener.close()
        raise StateRootError(
            f"cannot listen on {path}: {exc.strerror or exc}.",
            hint="the state root must be a writable directory on a filesystem that allows sockets",
        ) from exc
    finally:
        os.umask(old_mask)
    return listener, Name(path, found.st_dev, found.st_ino)


def peer(sock: socket.socket) -> tuple[int, int]:
    """(uid, pid) of the peer of a unix socket; pid 0 where the kernel doesn't say, or in another pid namespace."""
    if hasattr(socket, "SO_PEERCRED"):
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid, pid
    local_peercred, size = 1, 76  # macOS, struct xucred: version, uid, number of groups, 16 groups
    data = sock.getsockopt(0, local_peercred, size)
    return int(struct.unpack_from("=II", data)[1]), 0


def allowed(uid: int) -> bool:
    """Whether that user may connect: the palace's own, or root, who could open the palace anyway."""
    return uid in (os.geteuid(), 0)
