"""The ssh connection to the host that carries everything: the user's own ControlMaster, or one that we open.

We use the user's where it lives, because it may have cost a password or a second factor, and we never end it. No client
of it stays in the foreground (`ssh -N` over a master returns at once), so we keep a connection to its control socket:
that tells us of its end at once, and holds a ControlPersist time-out off while somebody needs the tunnel.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import subprocess
from typing import TYPE_CHECKING, Protocol

from ...system.file_trust import others_write
from ...system.shared_files import unlink_quietly
from ...system.unix_socket import peer_uid
from ..machine.ssh_failures import explain
from .ssh import TunnelError, end

if TYPE_CHECKING:
    from ...system.clock import Deadline
    from .ssh import Ssh

LOCAL_S = 5.0  # for commands that only this machine answers
OPEN_S = 15.0
_LOOK_S = 0.01  # between two looks for the control socket, which sends no event
_KEPT = 4096


class Master(Protocol):
    """A ControlMaster: the user's or ours.

    Attributes:
        control: path of its control socket. ours: whether we opened it and end it. fd: readable when it may have ended.
    """

    control: str
    ours: bool

    @property
    def fd(self) -> int: ...  # noqa: D102 - the class says it

    def alive(self) -> bool:
        """Whether it is there. Says nothing about whether the host answers."""

    def stderr(self) -> str:
        """The last it wrote on stderr."""

    def close(self) -> None:
        """Let go of it."""


class UserMaster:
    """The user's own."""

    ours = False

    def __init__(self, control: str, sock: socket.socket) -> None:
        self.control = control
        self._sock = sock
        sock.setblocking(False)

    @property
    def fd(self) -> int:
        """Of our connection to its control socket."""
        return self._sock.fileno()

    def alive(self) -> bool:
        """As Master says."""
        try:
            while data := self._sock.recv(4096):
                del data  # its greeting
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def stderr(self) -> str:
        """Empty: its stderr is the user's."""
        return ""

    def close(self) -> None:
        """Leave it to the user."""
        self._sock.close()


class OwnMaster:
    """Ours, from `open_master`."""

    ours = True

    def __init__(self, control: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self.control = control
        self._process = process
        self._err = process.stderr
        self._said = b""
        self._ended = False
        os.set_blocking(self._err.fileno(), False)

    @property
    def fd(self) -> int:
        """Of its stderr, which ends with it."""
        return self._err.fileno()

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def alive(self) -> bool:
        """As Master says."""
        self._read()
        return not self._ended and self._process.poll() is None

    def _read(self) -> None:
        while not self._ended:
            try:
                data = os.read(self._err.fileno(), _KEPT)
            except BlockingIOError:
                return
            self._ended = not data
            self._said = (self._said + data)[-_KEPT:]

    def stderr(self) -> str:
        """As Master says."""
        self._read()
        return self._said.decode("utf-8", "replace")

    def close(self) -> None:
        """End it, and with it everything that it carries."""
        end(self._process)
        self._read()
        self._err.close()
        unlink_quietly(self.control)


def control_path(ssh: Ssh) -> str:
    """The ControlPath that the user's configuration names for the host, "" where it names none."""
    settings = ssh.run(ssh.settings(), LOCAL_S)
    if settings.status != 0:
        return ""  # a bad configuration: the next command fails with ssh's words
    rows = (line.partition(" ") for line in settings.out.decode("utf-8", "surrogateescape").splitlines())
    return next((value for name, _, value in rows if name == "controlpath" and value != "none"), "")


def find_user_master(ssh: Ssh) -> UserMaster | None:
    """The user's ControlMaster to the host, if their configuration names one, it lives, and it is really theirs."""
    control = control_path(ssh)
    if not control or distrust_control(control) or ssh.run(ssh.tell(control, "check"), LOCAL_S).status != 0:
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(LOCAL_S)
        sock.connect(control)
        if peer_uid(sock) not in (os.geteuid(), 0):
            raise PermissionError(errno.EPERM, "it belongs to another user", control)
    except OSError:
        sock.close()
        return None
    return UserMaster(control, sock)


def distrust_control(control: str) -> str:
    """Why a control socket must not be used, "" if it may be, or is not there.

    Whoever listens there is told what to run on the host, and hears all that goes over the connection. ssh itself
    checks neither the socket's owner nor its folder.
    """
    folder = os.path.dirname(control) or "."
    try:
        around, found = os.stat(folder), os.lstat(control)
    except FileNotFoundError:
        return ""
    except OSError as exc:
        return f"{control}: {exc.strerror or exc}"
    owners = (os.geteuid(), 0)
    if not stat.S_ISSOCK(found.st_mode):
        return f"{control} is not a socket"
    if found.st_uid not in owners:
        return f"{control} belongs to another user (uid {found.st_uid})"
    if around.st_uid not in owners or (others_write(around) and not around.st_mode & stat.S_ISVTX):
        return f"other users can replace {control} (uid {around.st_uid}, mode {around.st_mode & 0o7777:o} of {folder})"
    return ""


def open_master(ssh: Ssh, control: str, deadline: Deadline) -> OwnMaster:
    """Open one at the new name `control`, ready for use. TunnelError: ssh could not connect."""
    argv = ssh.master(control)
    process = ssh.start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    master = OwnMaster(control, process)
    poller = select.poll()
    poller.register(master.fd, select.POLLIN)
    try:
        while not os.path.exists(control):
            if not master.alive():
                end(process)
                raise TunnelError(explain("connect", ssh.host, master.status, master.stderr()))
            if deadline.expired:
                raise TunnelError(explain("connect", ssh.host, None, master.stderr()))
            poller.poll(_LOOK_S * 1000)
    except BaseException:
        master.close()
        raise
    return master
