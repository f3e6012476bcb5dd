"""Ask a broker something about itself: its status, or to leave. One request, one answer, one deadline.

The broker itself answers, whatever its engine does. Nothing here starts, unlinks or locks anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NOT_ALLOWED, OTHER_PALACE, OVERLOADED, BrokerError, BrokerUnavailable, HandshakeRefused, UsageError
from ..locality.locality import locate
from ..protocol.hello import HELLO
from ..protocol.jsonrpc import load_object
from ..system.clock import Deadline
from ..system.kernel import view_of
from .attempt import ONCE, StartPolicy
from .dial import dial_any
from .discover import discover, fixed_endpoint, fixed_path
from .endpoint import UNIX
from .exchange import exchange
from .finder import RouteFinder
from .machine.election import CONNECT_EAGAIN, CONNECT_ENOENT, CONNECT_OK, CONNECT_TIMEOUT

if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from collections.abc import Mapping

    from ..system.paths import Context
    from .machine.election import ConnectSeen

REMOTE_S = 30.0  # to reach a broker on another machine: the first connection over ssh takes its time


@dataclass(frozen=True)
class BrokerReply:
    """The broker's answer, or what happened instead.

    Attributes:
        connect: the strongest sign of an owner over all endpoints.
        path: the socket that accepted, else the first that was tried.
        answer: the JSON-RPC result, None where nobody answered.
        why: what went wrong, in words; "" with an answer.
        broke_off: it accepted, and left before it answered: killed, or on its way out.
        unreachable: another kernel owns the palace and no route leads there: nothing is known of the broker.
    """

    connect: ConnectSeen
    path: str
    answer: dict[str, Any] | None = None
    why: str = ""
    unreachable: bool = False
    broke_off: bool = False

    @property
    def accepted(self) -> bool:
        """Whether somebody owns the socket, healthy or not."""
        return self.connect in (CONNECT_OK, CONNECT_EAGAIN, CONNECT_TIMEOUT)


def socket_paths(context: Context) -> list[str]:
    """Sockets where the broker may be, best first; $MEMPALACE_BROKER is binding.

    Raises:
        UsageError: $MEMPALACE_BROKER is not an endpoint.
    """
    fixed = fixed_path(context.env)
    return [fixed] if fixed is not None else discover(context).paths


def is_remote(env: Mapping[str, str]) -> bool:
    """Whether $MEMPALACE_BROKER names a broker on another machine. Raises UsageError where it is not an endpoint."""
    fixed = fixed_endpoint(env)
    return fixed is not None and fixed.kind != UNIX


def ask_broker(context: Context, method: str, params: dict[str, Any], deadline: Deadline) -> BrokerReply:
    """Dial the broker's endpoints in order and ask the first that accepts; it answers for this palace alone, unless
    $MEMPALACE_BROKER names it.

    Raises:
        UsageError: $MEMPALACE_BROKER is not an endpoint.
        BrokerUnavailable: the broker answered with an error.
    """
    if is_remote(context.env):
        return _ask_remote(context, method, params, deadline)
    fixed = fixed_endpoint(context.env)
    paths = socket_paths(context)
    try:
        dialled = dial_any(paths, named=fixed is not None)
    except BrokerUnavailable:  # a share may forbid it, which is no sandbox then
        if fixed is None and locate(context.files).foreign:
            return _ask_remote(context, method, params, deadline)
        raise
    if dialled.sock is not None:
        palace = {} if fixed else about(context)
        return ask(dialled.sock, dialled.path, method, {**params, **palace}, deadline)
    reply = BrokerReply(dialled.outcome, paths[0], None, f"{dialled.path}: {dialled.why}")
    owned = dialled.outcome == CONNECT_EAGAIN
    if fixed is None and not owned and locate(context.files).foreign:  # a share may answer a dial with any error
        return _ask_remote(context, method, params, deadline)
    return reply


def about(context: Context) -> dict[str, Any]:
    """Parameters that say which palace we mean: a record that somebody else wrote, or a link, may lead to the broker of
    another one.
    """
    identity = context.identity
    return {"palace": identity.as_json(), "view": view_of(identity).as_json()}


def _ask_remote(context: Context, method: str, params: dict[str, Any], deadline: Deadline) -> BrokerReply:
    """The same where another kernel owns the palace, by whatever route leads there."""
    answer_s = deadline.remaining()
    try:
        limit = Deadline.after(deadline.clock, REMOTE_S)
        found = RouteFinder(context, limit, StartPolicy(ONCE, heed_failures=False)).run()
    except UsageError:
        raise
    except BrokerError as exc:
        return BrokerReply(CONNECT_ENOENT, context.files.socket, None, exc.message.rstrip("."), unreachable=True)
    return ask(found.sock, found.endpoint, method, params, Deadline.after(deadline.clock, answer_s))


def ask(sock: RawSocket, path: str, method: str, params: dict[str, Any], deadline: Deadline) -> BrokerReply:
    """One request on a connected socket, which is closed in any case.

    Raises:
        HandshakeRefused: a hello that was refused.
        BrokerUnavailable: the broker answered with any other error.
    """
    request = json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}).encode() + b"\n"
    try:
        line = exchange(sock, request, deadline)
    except OSError as exc:
        return BrokerReply(CONNECT_OK, path, None, f"{path} broke off: {exc.strerror or exc}", broke_off=True)
    finally:
        sock.close()
    if line is None:
        return BrokerReply(CONNECT_OK, path, None, f"{path} accepts but does not answer")
    answer = load_object(line)
    if isinstance(answer.get("result"), dict):
        return BrokerReply(CONNECT_OK, path, answer["result"])
    if isinstance(answer.get("error"), dict):
        raise _refusal(path, method, answer["error"])
    return BrokerReply(CONNECT_OK, path, None, f"{path} closed the connection without an answer", broke_off=not line)


def _refusal(path: str, method: str, error: dict[str, Any]) -> BrokerError:
    if method == HELLO:
        return HandshakeRefused(str(error.get("message")))
    if error.get("code") in (NOT_ALLOWED, OVERLOADED):
        return BrokerUnavailable(str(error.get("message")))
    if error.get("code") == OTHER_PALACE:
        hint = f"look at {path} and the broker.json beside the palace (ls -l), and remove what no broker made"
        return BrokerUnavailable(f"{path} leads to another broker: {error.get('message')}", hint=hint)
    return BrokerUnavailable(
        f"the broker at {path} refused {method}: {error.get('message')}.",
        hint="install the same mempalace-broker version everywhere, then `mempalace-broker restart`",
    )
