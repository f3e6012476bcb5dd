"""What goes over the socket between a shim and the bridge of its container.

    shim -> bridge    "new\n"       I want a connection to the broker
                      "again\n"     the connection that I had broke: make sure before you give me another
                      "status\n"    describe yourself; I am not a user
    bridge -> shim    {"state": "ready", "started": bool} with one descriptor: the connection
                      {"state": "failed", "message": "...", "hint": "..."}
                      {"state": "up" or "down", ...} to "status"

and the options that a bridge is started with: its target. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import sys
from _socket import CMSG_LEN, SCM_RIGHTS, SOL_SOCKET

from ...errors import UsageError
from ...protocol.jsonrpc import load_object
from ..endpoint import SSH, Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from typing import Any

NEW = b"new\n"
AGAIN = b"again\n"
STATUS = b"status\n"

ANSWER_READY = "ready"
ANSWER_FAILED = "failed"

DEFAULT_COMMAND = "mempalace-broker"
FIELDS = ("host", "user", "port", "config", "state-root", "command")  # of a target, as the bridge's options
MAX_ANSWER = 65536
_MAX_DESCRIPTORS = 64


class SshTarget:
    """Which broker, by which ssh.

    Attributes:
        host: name, address or alias of ssh's configuration. user, port: "" and 0 where ssh is to know them.
        config: absolute path of ssh's configuration file, "" for ssh's own.
        state_root: path on that host, "" for that user's default.
        command: the program on that host.
    """

    __slots__ = ("command", "config", "host", "port", "state_root", "user")

    def __init__(
        self,
        host: str,
        *,
        user: str = "",
        port: int = 0,
        config: str = "",
        state_root: str = "",
        command: str = DEFAULT_COMMAND,
    ) -> None:
        if not host or host.startswith("-") or user.startswith("-"):
            raise UsageError(
                f"{user}@{host} is not a host for ssh.", hint="write ssh://[user@]host[:port][/state-root]."
            )
        if config and not config.startswith("/"):  # the bridge works in /, for agents of all folders
            raise UsageError(f"ssh's configuration {config!r} is not an absolute path.", hint="give it from / or ~ on.")
        self.host = host
        self.user = user
        self.port = port
        self.config = config
        self.state_root = state_root
        self.command = command

    def __str__(self) -> str:
        """As $MEMPALACE_BROKER has it."""
        return str(Endpoint(SSH, host=self.host, user=self.user, port=self.port, path=self.state_root))

    def fields(self) -> list[str]:
        """All fields as words, for a command line and for the name of the folder."""
        return [self.host, self.user, str(self.port), self.config, self.state_root, self.command]


class Answer:
    """The bridge's answer as it arrives: one line of JSON, and descriptors beside it.

    Attributes:
        ended: the bridge left, or sent nonsense, before the line was complete.
        fds: descriptors that have arrived, the reader's to close.
    """

    __slots__ = ("_line", "ended", "fds")

    def __init__(self) -> None:
        self._line = b""
        self.ended = False
        self.fds: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether the whole line is there."""
        return self._line.endswith(b"\n")

    def receive(self, sock: RawSocket) -> None:
        """Read what is there. Raises BlockingIOError where nothing is."""
        try:
            data, control, _, _ = sock.recvmsg(4096, _MAX_DESCRIPTORS * CMSG_LEN(4))
        except BlockingIOError:
            raise
        except OSError:
            data, control = b"", []
        self.fds += _descriptors(control)
        self._line += data
        self.ended = not self.complete and (not data or len(self._line) > MAX_ANSWER)

    def fields(self) -> dict[str, Any]:
        """The line's JSON object, empty where it is something else."""
        return load_object(self._line)


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in a message's control data."""
    return [
        int.from_bytes(data[at : at + 4], sys.byteorder)
        for level, kind, data in control
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
        for at in range(0, len(data) - 3, 4)
    ]
