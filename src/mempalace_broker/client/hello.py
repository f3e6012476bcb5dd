"""Talk to a broker and wait for its answer: hello and the admin requests. For commands; the shim has its own
loop.
"""

from __future__ import annotations

import os
import select

from ..core.handshake import hello_request
from ..core.jsonrpc import RESPONSE, Message, parse, to_bytes
from ..errors import BrokerError, BrokerUnavailable, DeadlineExceeded, HandshakeRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from collections.abc import Mapping
    from typing import Any

    from ..core.handshake import Identity
    from ..runtime.clock import Deadline

_BLOCK = 65536
_MAX_LINE = 64 * 1024 * 1024
_STOPPED = "it may be stopped (SIGSTOP) or overloaded: `mempalace-broker doctor`."


class RequestFailed(BrokerError):
    """The broker answered with a JSON-RPC error; `code` is its code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def call(
    sock: RawSocket, method: str, params: Mapping[str, Any] | None, deadline: Deadline, *, id_: str | int = 1
) -> Any:
    """Send one request and return its result. Lines that answer something else are passed over.

    One call at a time on a connection; the socket may be blocking or not.

    Raises:
        RequestFailed: the broker answered with an error.
        DeadlineExceeded: no answer in time. The request may still be carried out.
        BrokerUnavailable: the broker hung up.
    """
    request: dict[str, Any] = {"jsonrpc": "2.0", "id": id_, "method": method}
    if params is not None:
        request["params"] = dict(params)
    answer = _exchange(sock, request, deadline)
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        raise RequestFailed(0, f"{method}: {error!r}")
    code = error.get("code")
    raise RequestFailed(code if isinstance(code, int) else 0, str(error.get("message", "no reason given")))


def greet(
    sock: RawSocket, identity: Identity, deadline: Deadline, *, client: str, session: str = "", connection: int = 1
) -> dict[str, Any]:
    """Say hello and return the broker's side of it.

    Raises:
        HandshakeRefused: it is not for us, and why.
        DeadlineExceeded: it accepts but does not answer. It owns the palace all the same.
        BrokerUnavailable: it hung up.
    """
    request = hello_request(
        session=session or os.urandom(16).hex(),
        connection=connection,
        identity=identity,
        client=client,
        pid=os.getpid(),
    )
    try:
        result = call(sock, request["method"], request["params"], deadline, id_=request["id"])
    except RequestFailed as exc:
        raise HandshakeRefused(exc.message) from exc
    return result if isinstance(result, dict) else {}


def _exchange(sock: RawSocket, request: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    method = request["method"]
    buf = _send(sock, to_bytes(request) + b"\n", deadline, method)
    while True:
        line, newline, rest = buf.partition(b"\n")
        if newline:
            buf = rest
            message = parse(bytes(line))
            if _answers(message, request["id"]):
                body: dict[str, Any] = message.body
                return body
            continue
        if len(buf) > _MAX_LINE:
            raise BrokerUnavailable(f"the answer to {method} is too long.", mend="mempalace-broker restart")
        _poll(sock, select.POLLIN, deadline, method)
        try:
            data = sock.recv(_BLOCK)
        except (BlockingIOError, InterruptedError):
            continue
        except OSError as exc:
            raise _hung_up(method, exc.strerror or str(exc)) from exc
        if not data:
            raise _hung_up(method, "connection closed")
        buf += data


def _send(sock: RawSocket, line: bytes, deadline: Deadline, method: str) -> bytearray:
    """Send all; returns the empty buffer for what comes back."""
    sock.setblocking(False)
    view = memoryview(line)
    while view:
        try:
            view = view[sock.send(view) :]
        except (BlockingIOError, InterruptedError):
            _poll(sock, select.POLLOUT, deadline, method)
        except OSError as exc:
            raise _hung_up(method, exc.strerror or str(exc)) from exc
    return bytearray()


def _poll(sock: RawSocket, event: int, deadline: Deadline, method: str) -> None:
    left = deadline.remaining()
    if left <= 0:
        raise DeadlineExceeded(f"the broker accepts connections but did not answer {method} in time.", mend=_STOPPED)
    poller = select.poll()
    poller.register(sock.fileno(), event)
    poller.poll(None if left == float("inf") else left * 1000 + 1)


def _answers(message: Message, id_: str | int) -> bool:
    return message.kind == RESPONSE and type(message.id) is type(id_) and bool(message.id == id_)


def _hung_up(method: str, why: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"the broker hung up during {method}: {why}.", mend="mempalace-broker status")
