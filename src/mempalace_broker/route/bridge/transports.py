"""How the tunnel gets one more connection to the broker over an open master: transports hand out connected sockets.

A connection that opens proves nothing: ssh accepts first and asks the host afterwards. Only an answered request
counts, see `ping`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Protocol

from ...protocol.jsonrpc import load_object
from ...system.shared_files import unlink_quietly
from ..exchange import exchange
from ..machine.bridge import TransportMode
from ..machine.ssh_failures import explain
from .master import LOCAL_S
from .ssh import TunnelError, end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...system.clock import Deadline
    from .master import Master
    from .ssh import Ssh

MAX_NOISE = 64 * 1024  # bytes that a shell's profile may print before the broker speaks
_PING = b'{"jsonrpc":"2.0","id":"bridge","method":"ping"}\n'

ANSWERED = ""
UNANSWERED = "no answer"


class Transport(Protocol):
    """One way of getting connections.

    Attributes:
        mode: which one. path: the broker's socket on the host.
    """

    mode: TransportMode
    path: str

    def connect(self) -> socket.socket:
        """A new connection, non-blocking, nothing said on it yet. Raises OSError or TunnelError."""

    def close(self) -> None:
        """Take it down; connections that were handed out go on if they can."""


class ForwardTransport:
    """A listening socket of this machine that ssh forwards. Its name is new each time: ssh never removes its socket,
    can't bind over one that is left, and a second master told to unlink would steal it.
    """

    mode = TransportMode.FORWARD

    def __init__(self, ssh: Ssh, master: Master, local: str, path: str) -> None:
        self._ssh = ssh
        self._master = master
        self._local = local
        self.path = path

    @property
    def spec(self) -> str:
        """As -L has it; -O cancel wants the same."""
        return f"{self._local}:{self.path}"

    def open(self) -> None:
        """Set up the forwarding. Raises TunnelError where ssh refuses."""
        ran = self._ssh.run(self._ssh.tell(self._master.control, "forward", self.spec), LOCAL_S)
        if ran.status != 0:
            raise TunnelError(explain("forward a socket", self._ssh.host, ran.status, ran.err + self._master.stderr()))

    def connect(self) -> socket.socket:
        """As Transport says."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.connect(self._local)
        except OSError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """As Transport says."""
        if self._master.alive():
            with contextlib.suppress(TunnelError):  # ssh was uninstalled: then no master of ours runs either
                self._ssh.run(self._ssh.tell(self._master.control, "cancel", self.spec), LOCAL_S)
        unlink_quietly(self._local)


class StdioTransport:
    """An ssh process with `dial-stdio` for each connection, joined to it by a pair of sockets."""

    mode = TransportMode.STDIO

    def __init__(self, ssh: Ssh, argv: Sequence[str], path: str) -> None:
        self._ssh = ssh
        self._argv = argv
        self._running: list[subprocess.Popen[bytes]] = []
        self.path = path

    def connect(self) -> socket.socket:
        """As Transport says."""
        self.reap()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.setblocking(False)
                end_ = theirs.fileno()
                log = 2  # ours, the bridge's log
                self._running.append(self._ssh.start(self._argv, stdin=end_, stdout=end_, stderr=log))
            except BaseException:
                ours.close()
                raise
        return ours

    def reap(self) -> None:
        """Forget those that ended."""
        self._running = [process for process in self._running if process.poll() is None]

    def close(self) -> None:
        """As Transport says. The ssh of a connection ends with it."""
        for process in self._running:
            end(process)
        self._running = []


def open_transport(mode: TransportMode, ssh: Ssh, master: Master, path: str, *, local: str, program: str) -> Transport:
    """The transport of that mode. `local`: a new name for a socket; `program`: mempalace-broker on the host."""
    if mode is TransportMode.STDIO:
        return StdioTransport(ssh, ssh.command(master.control, program, "dial-stdio"), path)
    transport = ForwardTransport(ssh, master, local, path)
    try:
        transport.open()
    except BaseException:
        transport.close()
        raise
    return transport


def ping(transport: Transport, deadline: Deadline) -> str:
    """Ping the broker over a new connection: ANSWERED, UNANSWERED, or what happened instead."""
    try:
        with transport.connect() as sock:
            said = exchange(sock, _PING, deadline, complete=_has_pong, limit=MAX_NOISE)
    except TunnelError as exc:
        return str(exc)
    except OSError as exc:
        return exc.strerror or str(exc)
    if said is None:
        return UNANSWERED
    if _has_pong(said):
        return ANSWERED
    return "it said something else" if len(said) > MAX_NOISE else "it closed the connection"


def _has_pong(said: bytes | bytearray) -> bool:
    answers = map(load_object, bytes(said).split(b"\n")[:-1])
    return any(answer.get("id") == "bridge" and "result" in answer for answer in answers)


def forget(ssh: Ssh, folder: str, undo: Sequence[Sequence[str]]) -> None:
    """Take down what a bridge that was killed left in `folder`, and the forwards `undo` (control, spec) in masters."""
    with contextlib.suppress(TunnelError):
        for control, spec in undo:
            if os.path.exists(control):
                ssh.run(ssh.tell(control, "cancel", spec), LOCAL_S)
        for name in sorted(os.listdir(folder)):
            if name.startswith(CONTROL_PREFIX):
                ssh.run(ssh.tell(os.path.join(folder, name), "exit"), LOCAL_S)
    for name in os.listdir(folder):
        if name.startswith((CONTROL_PREFIX, LOCAL_PREFIX)):
            unlink_quietly(os.path.join(folder, name))


CONTROL_PREFIX = "c-"
LOCAL_PREFIX = "w-"
