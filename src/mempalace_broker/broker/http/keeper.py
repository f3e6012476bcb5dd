"""Keeps the listening socket when a broker is killed.

A stock server of mempalace's that finds a dead hub opens the palace itself, and keeps mempalace's write lock for life.
So once such clients have connected, a small process holds the listening socket as well, and the record names its pid.
When the broker dies, new connections wait in the kernel, and the next broker gets the socket as after a restart.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from ...system.private import state_folder
from .handover import NAME, Handover

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAVES = _READY = b"\n"
_START_S = 10.0
_END_S = 1.0


class Keeper:
    """The broker's side. Methods block.

    Args:
        palace: its real path. env: the broker's environment.
    """

    def __init__(self, palace: str, env: Mapping[str, str]) -> None:
        self._palace = palace
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._parent: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The keeper's pid, 0 if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self, listener: socket.socket) -> None:
        """Start the keeper if it does not run; it is ready then. Raises OSError if that fails."""
        if self.pid:
            return
        self.dismiss()
        self._parent, theirs = socket.socketpair()
        with theirs:
            given = [str(sock.fileno()) for sock in (theirs, listener)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, *given, self._palace],
                env=dict(self._env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), listener.fileno()],
                start_new_session=True,
            )
        self._parent.settimeout(_START_S)
        try:
            if self._parent.recv(1) != _READY:
                raise OSError("its keeper ended as soon as it was started")
        except OSError:
            self.dismiss()
            raise

    def dismiss(self) -> None:
        """End the keeper: the broker leaves in order. It may have ended already."""
        if self._parent is not None:
            with contextlib.suppress(OSError):  # it is gone
                self._parent.send(_LEAVES)
            self._parent.close()
            self._parent = None
        if self._process is not None:
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:  # it was stopped
                self._process.kill()
                self._process.wait()
            self._process = None


def main(argv: list[str]) -> None:
    """Wait for the broker's end; hand its socket on unless it dismissed us."""
    from .hub import hub_folder, withdraw

    parent, listener = (socket.socket(fileno=int(fd)) for fd in argv[:2])
    folder = hub_folder(state_folder(argv[2], os.environ))
    # bound from now on: the next broker may look for it before we know that ours has ended
    handover = Handover(listener, folder.file(NAME))
    handover.relied_on = True
    with parent:
        parent.send(_READY)
        if parent.recv(1):
            handover.close()
            return
    handover.run()
    withdraw(folder, os.getpid())


if __name__ == "__main__":
    main(sys.argv[1:])
