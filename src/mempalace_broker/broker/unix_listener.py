"""The unix socket: bound under the owner lock, and removed only while the name is still ours.

asyncio would take over the name of a live listener without an error (cpython#121252), so it gets a bound socket.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from ..errors import StateRootError, file_hint
from ..system.kernel import LINUX
from ..system.shared_files import SharedFolder
from ..system.unix_socket import bind

BACKLOG = 512


class Name(NamedTuple):
    """A socket's name in the filesystem, and its owner, as they were when we bound it."""

    path: str
    dev: int
    ino: int
    owner: int

    def intact(self) -> bool:
        """Whether the name still leads to our socket."""
        try:
            now = os.lstat(self.path)
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (self.dev, self.ino)

    def remove(self) -> None:
        """Unlink the name while it is ours. Raises OSError."""
        folder, name = os.path.split(self.path)
        with SharedFolder.open(folder) as opened:
            now = opened.look(name)
            if now is not None and (now.st_dev, now.st_ino) == (self.dev, self.ino):
                opened.remove(name)


def bind_unix(path: str) -> tuple[socket.socket, Name]:
    """Bind a listening socket, 0600. The caller holds the owner lock, so an older file of that name is stale.

    Raises:
        StateRootError: the name can't be bound; says why.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    folder, name = os.path.split(path)
    try:
        with SharedFolder.open(folder) as opened:
            opened.clear(name)
            bind(listener, opened.fd, name, path)
            found = opened.give_away(name) if LINUX else opened.look(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "its name was removed at once", path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        place = "the state root must be a writable directory on a filesystem that allows sockets"
        raise StateRootError(
            f"cannot listen on {path}: {exc.strerror or exc}.", hint=file_hint(exc, otherwise=place)
        ) from exc
    finally:
        os.umask(old_mask)
    return listener, Name(path, found.st_dev, found.st_ino, found.st_uid)


def allowed(uid: int, owner: int) -> bool:
    """Whether that user may connect: we ourselves; root, who could open the palace anyway; and where we are root, the
    palace's owner, to whom our socket belongs.
    """
    return uid in (os.geteuid(), 0) or (os.geteuid() == 0 and uid == owner)
