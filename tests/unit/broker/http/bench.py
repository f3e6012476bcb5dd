"""An HTTP connection without sockets: what a client sends goes in, what we send comes out, and time is turned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import h11

from mempalace_broker.broker.http.connection import HttpConnection
from mempalace_broker.broker.http.machine.gate import Admitted, Head, Refusal, ViewAccess, judge
from mempalace_broker.broker.http.machine.page_access import PageAccess
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.broker.turns import Turns

TOKEN = "c0" * 32
PORT = 21_000
NO_VIEWS = ViewAccess("", PageAccess(lambda: b""), 0.0)
BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.unread = 0
        self.closed = self.aborted = self.half = self.paused = False
        self.asked_to_pause = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def write(self, data: Any) -> None:
        assert not self.half
        self.sent += data

    def write_eof(self) -> None:
        self.half = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def dup(self) -> str:
        return "a copy"

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.paused = True
        self.asked_to_pause += 1

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Endpoint:
    """Answers with the body, or keeps the client waiting. `asked`: what came."""

    def __init__(self) -> None:
        self.waits = False
        self.asked: list[tuple[HttpConnection, Admitted, bytes]] = []
        self.lost_ = 0

    def lost(self) -> None:
        self.lost_ += 1

    def handle(self, client: HttpConnection, call: Admitted, body: bytes) -> None:
        self.asked.append((client, call, body))
        if self.waits:
            client.reply = self
        else:
            client.respond(200, body)


class Listener:
    """What a connection asks of its listener."""

    stall_s = 60.0

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = Turns(lambda: self.now)
        self.endpoint = Endpoint()
        self.overfull = False
        self.requests = 0
        self.refusals: list[int] = []
        self.limited = 0
        self.there: set[HttpConnection] = set()

    def made(self, connection: HttpConnection) -> None:
        self.there.add(connection)

    def lost(self, connection: HttpConnection) -> None:
        self.there.discard(connection)

    def judge(self, head: Head) -> Admitted | Refusal:
        return judge(head, port=PORT, keys={TOKEN: Origin.GUEST}, versions=("2025-11-25",), views=NO_VIEWS)

    def handle(self, connection: HttpConnection, call: Admitted, body: bytes) -> None:
        self.requests += 1
        self.endpoint.handle(connection, call, body)

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal.status)

    def limit_unread(self) -> None:
        self.limited += 1


class Bench:
    """One connection. Use it within a running loop, see `on_a_loop`."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.transport = Transport()
        self.connection = HttpConnection(cast(Any, self.listener))
        self.connection.connection_made(self.transport)

    @property
    def endpoint(self) -> Endpoint:
        return self.listener.endpoint

    def says(self, *parts: bytes) -> None:
        for part in parts:
            self.connection.data_received(part)

    def answers(self) -> list[tuple[int, bytes]]:
        """Status and body of all that was sent, as a client of ours reads it."""
        client = h11.Connection(h11.CLIENT)
        out: list[tuple[int, bytes]] = []
        if not self.transport.sent:
            return out
        client.receive_data(bytes(self.transport.sent))
        while True:
            if client.our_state is h11.IDLE:
                client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
                client.send(h11.EndOfMessage())
            event = client.next_event()
            if isinstance(event, h11.InformationalResponse | h11.Response):
                out.append((event.status_code, b""))
            elif isinstance(event, h11.Data):
                out[-1] = (out[-1][0], out[-1][1] + bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if client.their_state is not h11.DONE:
                    return out
                client.start_next_cycle()
            else:
                return out


def request(body: bytes = BODY, *more: str, method: str = "POST", token: str = TOKEN, host: str = "127.0.0.1") -> bytes:
    lines = [
        f"{method} /mcp HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Authorization: Bearer {token}",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def on_a_loop(work: Callable[[], None]) -> None:
    async def main() -> None:
        work()

    asyncio.run(main())
