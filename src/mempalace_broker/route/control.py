"""Ask a broker something about itself: its status, or to leave. One request, one answer, one deadline.

Answered by the broker alone, whatever its engine does. Nothing here starts, unlinks or locks anything.
"""

from __future__ import annotations

import json
import select
from typing import TYPE_CHECKING, Any

from ..errors import BrokerError, BrokerUnavailable, HandshakeRefused, UsageError
from ..locality.locality import place_of
from ..protocol.hello import HELLO
from ..protocol.palace import PalaceIdentity
from ..system.clock import Deadline
from .dial import dial
from .discover import fixed_endpoint, fixed_path, look
from .endpoint import UNIX
from .finder import reach
from .machine.election import CONNECT_EAGAIN, CONNECT_ENOENT, CONNECT_OK, CONNECT_TIMEOUT, strongest
from .unix import ONCE

if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from collections.abc import Mapping

    from ..system.paths import StateFiles

MAX_ANSWER = 32 << 20
FAR_S = 30.0  # to get to a broker elsewhere: the first connection over ssh takes its time
_CHUNK = 1 << 16


class Contact:
    """What came of dialling a palace's broker.

    Attributes:
        connect: one of election.CONNECTS, the strongest sign of an owner over all endpoints.
        path: the socket that accepted, else the first that was tried.
        answer: the JSON-RPC result, None where nobody answered.
        why: what went wrong, in words; "" with an answer.
        unreachable: the broker is elsewhere and there was no way to it: nothing is known of it.
    """

    __slots__ = ("answer", "connect", "path", "unreachable", "why")

    def __init__(
        self, connect: str, path: str, answer: dict[str, Any] | None = None, why: str = "", *, unreachable: bool = False
    ) -> None:
        self.unreachable = unreachable
        self.connect = connect
        self.path = path
        self.answer = answer
        self.why = why

    @property
    def accepted(self) -> bool:
        """Whether somebody owns the socket, healthy or not."""
        return self.connect in (CONNECT_OK, CONNECT_EAGAIN, CONNECT_TIMEOUT)


def endpoints(files: StateFiles, env: Mapping[str, str]) -> list[str]:
    """Sockets where the broker may be, best first; $MEMPALACE_BROKER is binding.

    Raises:
        UsageError: $MEMPALACE_BROKER names no unix socket.
    """
    fixed = fixed_path(env)
    return [fixed] if fixed is not None else look(files, env).paths


def contact(
    files: StateFiles,
    env: Mapping[str, str],
    method: str,
    params: dict[str, Any],
    deadline: Deadline,
) -> Contact:
    """Dial the broker's endpoints in order and ask the first that accepts.

    Raises:
        UsageError: $MEMPALACE_BROKER names no unix socket.
        BrokerUnavailable: the broker answered with an error.
    """
    fixed = fixed_endpoint(env)
    if fixed is not None and fixed.kind != UNIX:
        return _elsewhere(files, env, method, params, deadline)
    seen: list[str] = []
    words = "nobody listens"
    paths = endpoints(files, env)
    for path in paths:
        connect, sock, why = dial(path)
        if sock is not None:
            return ask(sock, path, method, params, deadline)
        seen.append(connect)
        if connect == strongest(seen):
            words = f"{path}: {why}"
    found = Contact(strongest(seen) if seen else CONNECT_ENOENT, paths[0], None, words)
    if fixed is None and not found.accepted and place_of(files).foreign:
        return _elsewhere(files, env, method, params, deadline)
    return found


def _elsewhere(
    files: StateFiles, env: Mapping[str, str], method: str, params: dict[str, Any], deadline: Deadline
) -> Contact:
    """The same where the broker is another kernel's, by whatever route leads there."""
    identity = PalaceIdentity(files.palace, "", "default")
    patience = deadline.remaining()
    try:
        found = reach(identity, Deadline.after(deadline.clock, FAR_S), env=env, mode=ONCE)
    except UsageError:
        raise
    except BrokerError as exc:
        return Contact(CONNECT_ENOENT, files.socket, None, exc.message.rstrip("."), unreachable=True)
    return ask(found.sock, found.endpoint, method, params, Deadline.after(deadline.clock, patience))


def ask(sock: RawSocket, path: str, method: str, params: dict[str, Any], deadline: Deadline) -> Contact:
    """One request on a connected socket, which is closed in any case.

    Raises:
        HandshakeRefused: a hello that was refused.
        BrokerUnavailable: any other error for an answer.
    """
    request = json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}).encode() + b"\n"
    try:
        line = _exchange(sock, request, deadline)
    except OSError as exc:
        return Contact(CONNECT_OK, path, None, f"{path} broke off: {exc.strerror or exc}")
    finally:
        sock.close()
    if line is None:
        return Contact(CONNECT_OK, path, None, f"{path} accepts but does not answer")
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("result"), dict):
        return Contact(CONNECT_OK, path, answer["result"])
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        if method == HELLO:
            raise HandshakeRefused(str(error.get("message")))
        raise BrokerUnavailable(
            f"the broker at {path} refused {method}: {error.get('message')}.",
            hint="install the same mempalace-broker version everywhere, then `mempalace-broker restart`",
        )
    return Contact(CONNECT_OK, path, None, f"{path} closed the connection without an answer")


def _exchange(sock: RawSocket, request: bytes, deadline: Deadline) -> bytes | None:
    """Send a line, read a line; None if the deadline came first, b"" if the other side left."""
    view = memoryview(request)
    while view:
        if not _wait(sock.fileno(), select.POLLOUT, deadline):
            return None
        view = view[sock.send(view) :]
    parts: list[bytes] = []
    size = 0
    while _wait(sock.fileno(), select.POLLIN, deadline):
        data = sock.recv(_CHUNK)
        parts.append(data)
        size += len(data)
        if not data or data.endswith(b"\n") or size > MAX_ANSWER:
            return b"".join(parts)
    return None


def _wait(fd: int, event: int, deadline: Deadline) -> bool:
    poller = select.poll()
    poller.register(fd, event)
    left = deadline.remaining()
    return bool(poller.poll(None if left == float("inf") else int(left * 1000) + 1))


def pid_command(pid: int) -> str:
    """What a process is called, "" if it can't be told. Of its arguments only the module or script that a Python
    runs is named: the others may hold secrets.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        name = str(process.name())
        words = process.cmdline() if name.startswith("python") else []
    except (psutil.Error, OSError):
        return ""
    return _python_program(name, words)


def _python_program(name: str, words: list[str]) -> str:
    """ "python -m module" or the script's file name, for an interpreter; else the name."""
    for number, word in enumerate(words[1:], 1):
        if word == "-m" and number + 1 < len(words):
            return f"{name} -m {words[number + 1]}"
        if word == "-c":
            return f"{name} -c"
        if not word.startswith("-"):
            return word.rsplit("/", 1)[-1]
    return name
