"""From a broker that restarts to the next one, whichever process that will be: the listening socket, and connections
on which nothing is under way.

mempalace's own servers look for the hub at each request, and open the palace themselves, for life, where its pid is
gone. So a broker that leaves for a restart stays as a process until the next one has its record in place, and its
sockets pass on as they are: whoever connects meanwhile, or asks on an old connection, waits a moment and is answered.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from ...system.kernel import LINUX
from ...system.shared_files import SharedFolder, unlink_quietly
from ...system.unix_socket import bind, connect, fits, peer_uid

if TYPE_CHECKING:
    from ...system.private import PrivateFile

NAME = "next.sock"
WAIT_S = 10.0  # for the next broker; who starts it does so at once
_MOST = 250  # descriptors in one message: Linux takes 253
_TAKE_S = 5.0  # for the broker that leaves: it has nothing else left to do, or there is no name to connect to
_RELIED_ON = b"!"


class Taken(NamedTuple):
    """What the next broker got. `parent`: to be closed when its record is in place. `relied_on`: see Handover."""

    listener: socket.socket
    connections: list[socket.socket]
    parent: socket.socket
    relied_on: bool


class Handover:
    """The side of the broker that leaves.

    Args:
        listener: the listening socket; ours from now on. place: the name of our own socket in the private folder.

    Attributes:
        connections: to be handed over as well.
        relied_on: clients came that open the palace themselves where they find nobody.

    Raises:
        OSError: that name can't be bound.
    """

    def __init__(self, listener: socket.socket, place: PrivateFile) -> None:
        self.connections: list[socket.socket] = []
        self.relied_on = False
        self._listener = listener
        self._path = place.path
        self._server = socket.socket(socket.AF_UNIX)
        if not LINUX and not fits(self._path):
            raise OSError(f"{self._path} is too long for a socket")
        folder, name = os.path.split(self._path)
        with SharedFolder.open(os.path.realpath(folder)) as opened:
            opened.remove(name)
            bind(self._server, opened.fd, name, self._path)
            self._bound = opened.look(name)
        self._server.listen(4)

    def close(self) -> None:
        """Close the sockets, and remove our name."""
        self._free_name()
        for sock in (self._server, self._listener, *self.connections):
            sock.close()

    def _free_name(self) -> None:
        """Remove our name, unless another process has bound it since."""
        with contextlib.suppress(OSError):
            if self._bound is not None and os.path.samestat(self._bound, os.lstat(self._path)):
                unlink_quietly(self._path)

    def run(self) -> None:
        """Wait for the next broker, hand over, and wait until it needs us no more. Blocks; never raises."""
        try:
            self._server.settimeout(WAIT_S)
            peer, _ = self._server.accept()
            self._free_name()  # the next one, or its keeper, may bind it from now on
            with peer:
                if peer_uid(peer) == os.geteuid():
                    peer.settimeout(WAIT_S)
                    sockets = [self._listener, *self.connections][:_MOST]
                    socket.send_fds(
                        peer, [_RELIED_ON if self.relied_on else b"\n"], [sock.fileno() for sock in sockets]
                    )
                    peer.recv(1)
        except OSError:
            pass  # nobody came in time, or it has gone: nothing is left to be done
        finally:
            self.close()


def take(place: PrivateFile, port: int) -> Taken | None:
    """What a broker that is leaving hands over; None where there is none, or it listens on another port than `port`
    (0: any).
    """
    parent = socket.socket(socket.AF_UNIX)
    parent.settimeout(_TAKE_S)
    sockets: list[socket.socket] = []
    word = b""
    try:
        connect(parent, place.path)
        if peer_uid(parent) == os.geteuid():
            word, fds, *_ = socket.recv_fds(parent, 1, _MOST)
            sockets = [socket.socket(fileno=fd) for fd in fds]
    except OSError:
        pass
    for sock in sockets:
        sock.setblocking(False)
        sock.set_inheritable(False)
    if sockets and sockets[0].family == socket.AF_INET and port in (0, sockets[0].getsockname()[1]):
        return Taken(sockets[0], sockets[1:], parent, word == _RELIED_ON)
    for sock in (parent, *sockets):
        sock.close()
    return None
