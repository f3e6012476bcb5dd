"""Means of getting one more connection to the broker over an open master. Each hands out connected sockets.

A connection that opens shows nothing: ssh accepts first and asks the host afterwards. Only an answered request counts,
see `answers`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
from typing import TYPE_CHECKING, Protocol

from ..machine.bridge import CHANNEL, FORWARD, STDIO
from ..machine.ssh_failures import explain
from .master import LOCAL_S, remove
from .ssh import TunnelError, end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...system.clock import Deadline
    from .master import Master
    from .ssh import Ssh

MAX_NOISE = 64 * 1024  # bytes that a shell's profile may print before the broker speaks
_PING = b'{"jsonrpc":"2.0","id":"bridge","method":"ping"}\n'

ANSWERED = ""
SILENT = "no answer"


class Transport(Protocol):
    """One of the means.

    Attributes:
        mode: which. path: the broker's socket on the host.
    """

    mode: str
    path: str

    def connect(self) -> socket.socket:
        """A new connection, non-blocking, nothing said on it yet. OSError or TunnelError: it can't be."""

    def close(self) -> None:
        """Take it down; connections that were handed out go on if they can."""


class ForwardTransport:
    """A listening socket of this machine that ssh forwards. Its name is new each time: ssh never removes one, can't
    bind over one that is left, and a second master told to unlink would steal it.
    """

    mode = FORWARD

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
        """Have it set up. TunnelError: ssh won't."""
        ran = self._ssh.run(self._ssh.tell(self._master.control, "forward", self.spec), LOCAL_S)
        if ran.status != 0:
            raise TunnelError(explain("forward a socket", self._ssh.place, ran.status, ran.err + self._master.words()))

    def connect(self) -> socket.socket:
        """See Way."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.connect(self._local)
        except OSError:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """See Way."""
        if self._master.alive():
            with contextlib.suppress(TunnelError):  # no ssh any more: then it is no longer in a master of ours either
                self._ssh.run(self._ssh.tell(self._master.control, "cancel", self.spec), LOCAL_S)
        remove(self._local)


class ChannelTransport:
    """An ssh of its own for each connection, joined to it by nothing but a pair of sockets."""

    def __init__(self, ssh: Ssh, mode: str, argv: Sequence[str], path: str) -> None:
        self._ssh = ssh
        self._argv = argv
        self._running: list[subprocess.Popen[bytes]] = []
        self.mode = mode
        self.path = path

    def connect(self) -> socket.socket:
        """See Way."""
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
        """See Way. The ssh of a connection goes with it."""
        for process in self._running:
            end(process)
        self._running = []


def make(mode: str, ssh: Ssh, master: Master, path: str, *, local: str, program: str) -> Transport:
    """The way of that mode. Args: local: a new name for a socket; program: ours on the host."""
    if mode == FORWARD:
        way = ForwardTransport(ssh, master, local, path)
        try:
            way.open()
        except BaseException:
            way.close()
            raise
        return way
    assert mode in (CHANNEL, STDIO)
    control = master.control
    argv = ssh.channel(control, path) if mode == CHANNEL else ssh.command(control, program, "dial-stdio")
    return ChannelTransport(ssh, mode, argv, path)


def answers(way: Transport, deadline: Deadline) -> str:
    """Ask the broker something over a new connection: ANSWERED, SILENT, or what happened instead."""
    try:
        sock = way.connect()
    except (OSError, TunnelError) as exc:
        return str(exc)
    with sock:
        try:
            return _ask(sock, deadline)
        except OSError as exc:
            return exc.strerror or str(exc)


def _ask(sock: socket.socket, deadline: Deadline) -> str:
    sock.send(_PING)  # it is the first in an empty buffer: it fits
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    said = b""
    while len(said) <= MAX_NOISE:
        if deadline.expired or not poller.poll(deadline.remaining() * 1000 + 1):
            return SILENT
        data = sock.recv(4096)
        if not data:
            return "it closed the connection"
        said += data
        if any(_is_pong(line) for line in said.split(b"\n")[:-1]):
            return ANSWERED
    return "it said something else"


def _is_pong(line: bytes) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and said.get("id") == "bridge" and "result" in said


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
            remove(os.path.join(folder, name))


CONTROL_PREFIX = "c-"
LOCAL_PREFIX = "w-"
