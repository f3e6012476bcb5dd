"""What happens to an admitted request: to the broker's protocol with it, and back with the answer.

An answer that comes soon is plain JSON. One that takes longer than a client or a proxy may wait in silence becomes a
stream of events, where the client accepts that; in a session it has an id, by which the client gets the answer after
its connection broke.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from ...protocol import jsonrpc as rpc
from ...protocol.framing import LONG
from ...protocol.jsonrpc import CANCELLED, INITIALIZE
from ...protocol.text import printable
from ..machine.session import Origin
from .exchange import Exchange
from .machine import modern
from .machine.gate import Admitted, Refusal, Route
from .machine.hub_record import mended
from .machine.sessions import HttpSession, HttpSessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..jobs.service import JobService
    from ..runner import ProtocolRunner
    from .client import Client
    from .machine.sessions import Stream

STREAM_AFTER_S = 10.0
MOST_EXCHANGES = 256
MOST_WITH_GUESTS = 128  # the rest is kept for the user's own commands
SESSION_HEADER = "Mcp-Session-Id"
_PRIMED_SINCE = "2025-11-25"  # clients of older versions take an event without data for an error
_MAX_AGENT = 64


class McpEndpoint:
    """The requests to /mcp of all connections.

    Args:
        number: gives each exchange its number among the broker's clients. jobs: the job API.
    """

    def __init__(self, runner: ProtocolRunner, number: Callable[[], int], jobs: Callable[[], JobService]) -> None:
        self.sessions = HttpSessions(lambda: os.urandom(16))
        self.exchanges: dict[int, Exchange] = {}
        self.requests = 0
        self.runner = runner
        self._number = number
        self._jobs = jobs
        self._guests_flow = 0

    def handle(self, client: Client, call: Admitted, body: bytes) -> None:
        """Answer a request, now or later."""
        self.requests += 1
        if call.route is Route.JOBS:
            self._jobs().handle(client, call.method, call.target, body)
            return
        session = self.sessions.find(call.session, call.token) if call.session else None
        if call.session and session is None:
            client.refuse(Refusal(404, "this session has ended or is unknown: initialize again"))
        elif call.route is Route.POST:
            self._post(client, call, session, body)
        elif call.route is Route.GET:
            self._resume(client, call, session)
        elif session is None:
            client.refuse(Refusal(404, "the request names no session"))
        else:
            self.sessions.end(session)
            client.respond(200, b"")

    def ask(self, client: Client, session: HttpSession, line: bytes, headers: list[tuple[str, str]]) -> None:
        """Send a request of the broker's own page; the answer is a JSON-RPC message with these `headers`."""
        if len(self.exchanges) >= MOST_EXCHANGES:
            client.refuse(_busy(MOST_EXCHANGES))
        else:
            Reply(self, client, Admitted(Route.POST, origin=Origin.USER), session, line, headers, "")

    # -- messages

    def _post(self, client: Client, call: Admitted, session: HttpSession | None, body: bytes) -> None:
        most = MOST_WITH_GUESTS if call.origin is Origin.GUEST else MOST_EXCHANGES
        if len(self.exchanges) >= most:
            client.refuse(_busy(most))
            return
        line = body.strip()
        if not line:
            client.refuse(Refusal(400, "the body is empty"))
            return
        if b"\n" in line or b"\r" in line:  # between two tokens: in a text they are escaped
            line = line.replace(b"\n", b" ").replace(b"\r", b" ")
        if call.origin is Origin.USER and len(line) < LONG:
            line = mended(line)
        headers: list[tuple[str, str]] = []
        method = ""
        if call.version == modern.VERSION and len(line) < LONG:
            message = rpc.parse(line)
            method = message.method
            if method == modern.DISCOVER and message.kind == rpc.REQUEST:
                client.respond(200, modern.discovered(message.id, self.runner.protocol.answers))
                return
        elif len(line) < LONG and b'"initialize"' in line and (agent := _introduction(line)) is not None:
            session = session or self.sessions.start(call.token, agent)
            headers.append((SESSION_HEADER, session.id))
        elif session is not None and len(line) < LONG and b"notifications/cancelled" in line:
            self._cancel(session, line)
        Reply(self, client, call, session, line, headers, method)

    def open(self, call: Admitted, session: HttpSession | None, done: Callable[[list[bytes]], None]) -> Exchange:
        """A new exchange, not started yet."""
        assert call.origin is not None
        agent = session.agent if session is not None else ""
        number = self._number()
        exchange = Exchange(self.runner, number, call.origin, agent, self._flow(call, session, number), done)
        self.exchanges[exchange.number] = exchange
        if session is not None:
            session.calls.add(exchange.number)
        return exchange

    def _flow(self, call: Admitted, session: HttpSession | None, number: int) -> int:
        """Whose turn a request takes: all of a session's are one flow, and all of the guests without one.

        The user's own programs have no sessions, and are as many clients as they are processes.
        """
        if session is not None:
            session.flow = session.flow or number
            return session.flow
        if call.origin is Origin.GUEST:
            self._guests_flow = self._guests_flow or number
            return self._guests_flow
        return number

    def close(self, exchange: Exchange, session: HttpSession | None) -> None:
        """It is over."""
        self.exchanges.pop(exchange.number, None)
        if session is not None:
            session.calls.discard(exchange.number)

    def _cancel(self, session: HttpSession, line: bytes) -> None:
        """Tell the session's other exchanges: the request that is meant is one of theirs."""
        message = rpc.parse(line)
        if message.kind == rpc.NOTIFICATION and message.method == CANCELLED:
            for exchange in [self.exchanges[number] for number in session.calls]:
                exchange.add(line)  # which may end another one of them

    # -- streams

    def _resume(self, client: Client, call: Admitted, session: HttpSession | None) -> None:
        if not call.last_event:  # the broker says nothing of its own accord
            client.refuse(Refusal(405, "the only streams are answers to requests", ("Allow", "POST, DELETE")))
            return
        stream = self.sessions.stream(call.last_event, session) if session is not None else None
        if stream is None:
            client.refuse(Refusal(404, "the answer to that request is not kept"))
            return
        client.begin_stream(stream.id, prime=call.version >= _PRIMED_SINCE)
        if stream.answer is not None:
            client.end_stream(stream.answer, f"{stream.id}.1")
            self.sessions.delivered(stream)
            return
        if stream.listener is not None:
            stream.listener([])  # an earlier connection, which would wait for ever: the answer goes to this one
        _Resumed(client, stream)


class Reply:
    """The answer to one POST."""

    def __init__(
        self,
        endpoint: McpEndpoint,
        client: Client,
        call: Admitted,
        session: HttpSession | None,
        line: bytes,
        headers: list[tuple[str, str]],
        method: str,
    ) -> None:
        self._endpoint = endpoint
        self._client: Client | None = client
        self._call = call
        self._session = session
        self._batch = line.startswith(b"[")
        self._headers = headers
        self._method = method
        self._stream: Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._streaming = False
        client.reply = self
        self._exchange = endpoint.open(call, session, self._done)
        self._exchange.start(line)
        if call.streams and self._client is not None:
            self._timer = asyncio.get_running_loop().call_later(STREAM_AFTER_S, self._takes_long)

    def _takes_long(self) -> None:
        if self._client is None:
            return
        self._streaming = True
        if self._session is not None and self._call.version != modern.VERSION:
            self._stream = self._endpoint.sessions.open_stream(self._session)
            self._stream.listener = self._send_events
        event = self._stream.id if self._stream is not None else ""
        self._client.begin_stream(event, prime=self._call.version >= _PRIMED_SINCE)

    def _done(self, lines: list[bytes]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._endpoint.close(self._exchange, self._session)
        messages = [line for part in lines for line in part.split(b"\n") if line]
        if self._call.version == modern.VERSION:
            messages = [modern.completed(message, self._method) for message in messages]
        if self._stream is not None:
            self._endpoint.sessions.deliver(self._stream, messages)
        elif self._streaming:
            self._send_events(messages)
        elif self._client is not None:
            client, self._client = self._client, None
            client.reply = None
            client.respond(*_whole(messages, batch=self._batch), *self._headers)

    def _send_events(self, messages: list[bytes]) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.reply = None
            client.end_stream(messages, f"{self._stream.id}.1" if self._stream is not None else "")

    def lost(self) -> None:
        """The connection broke. The calls go on: a `mine` is not given up because its client is impatient; only in the
        newest version of the protocol that is how a client cancels.
        """
        self._client = None
        if self._stream is not None and self._stream.listener == self._send_events:
            self._stream.listener = None
        if self._call.version == modern.VERSION:
            self._endpoint.close(self._exchange, self._session)
            self._exchange.withdraw()


class _Resumed:
    """The answer to an earlier POST, by a new connection."""

    def __init__(self, client: Client, stream: Stream) -> None:
        self._client = client
        self._stream = stream
        client.reply = self
        stream.listener = self._send

    def _send(self, answer: list[bytes]) -> None:
        self._client.end_stream(answer, f"{self._stream.id}.1")

    def lost(self) -> None:
        """The connection broke again; by another one the client may be back already."""
        if self._stream.listener == self._send:
            self._stream.listener = None


def _busy(most: int) -> Refusal:
    return Refusal(503, f"{most} requests are under way already", ("Retry-After", "1"))


def _whole(messages: list[bytes], *, batch: bool) -> tuple[int, bytes]:
    """Status and body of an answer in one piece."""
    if not messages:
        return 202, b""
    return 200, b"[" + b",".join(messages) + b"]" if batch else messages[0]


def _introduction(line: bytes) -> str | None:
    """The client's name for itself if that is an `initialize`, else None."""
    message = rpc.parse(line)
    if message.kind != rpc.REQUEST or message.method != INITIALIZE:
        return None
    info: Any = message.params.get("clientInfo")
    name = info.get("name") if isinstance(info, dict) else ""
    return printable(name, _MAX_AGENT) if isinstance(name, str) else ""
