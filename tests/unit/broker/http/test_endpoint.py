"""From an admitted request to the broker's protocol and back, with a protocol that answers when it is told to."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from mempalace_broker.broker.http import endpoint as mod
from mempalace_broker.broker.http.client import Pending
from mempalace_broker.broker.http.endpoint import McpEndpoint
from mempalace_broker.broker.http.exchange import Exchange
from mempalace_broker.broker.http.machine.gate import Admitted, Refusal, Route
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.broker.runner import ProtocolRunner
from mempalace_broker.broker.turns import Turns
from mempalace_broker.protocol.constant_answers import ConstantAnswers
from mempalace_broker.protocol.jsonrpc import result_line
from mempalace_broker.system.loopback_peer import LoopbackPeer

TOKEN = "c0" * 32
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
HELLO = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"clientInfo":{"name":"tester"}}}'


class Protocol:
    def __init__(self) -> None:
        self.answers = ConstantAnswers("3.11.0")


class Runner:
    """Takes what exchanges say; `heard` has the lines, `there` the exchanges that wait for an answer."""

    def __init__(self) -> None:
        self.protocol = Protocol()
        self.there: dict[int, Exchange] = {}
        self.heard: list[tuple[int, bytes]] = []
        self.agents: list[str] = []
        self.origins: list[Origin] = []
        self.flows: list[int] = []
        self.turns = Turns()
        self.slices = 1
        self.most_unread = 4 << 20

    def opened(self, conn: Exchange, pid: int, origin: Origin, agent: str, flow: int) -> None:
        self.flows.append(flow)
        self.origins.append(origin)
        self.there[conn.number] = conn
        self.agents.append(agent)

    def work(self, conn: Exchange, lines: deque[bytes]) -> bool:
        self.slices -= 1
        if self.slices > 0:
            return True
        self.heard += [(conn.number, line) for line in lines]
        lines.clear()
        return False

    def limit_unread(self) -> None:
        for conn in list(self.there.values()):
            if conn.unread > self.most_unread:
                conn.drop("too much")

    def eof(self, conn: Exchange) -> None:
        if b'"id"' not in self.heard[-1][1]:
            conn.close()

    def closed(self, conn: Exchange) -> None:
        self.there.pop(conn.number, None)

    def answer(self, number: int, *results: object) -> None:
        conn = self.there[number]
        for id_, result in enumerate(results, 1):
            conn.send(result_line(id_, result))
        conn.close()


class Client:
    def __init__(self) -> None:
        self.reply: Pending | None = None
        self.peer = LoopbackPeer(None, None)
        self.said: list[Any] = []

    def respond(self, status: int, body: bytes, *headers: tuple[str, str], kind: str = "") -> None:
        self.said.append((status, body.decode(), *headers))

    def refuse(self, refusal: Refusal) -> None:
        self.said.append(refusal.status)

    def begin_stream(self, event: str, *, prime: bool) -> None:
        self.said.append(("stream", bool(event), prime))
        self.event = event

    def end_stream(self, messages: list[bytes], event: str) -> None:
        self.said.append(("events", [json.loads(line)["result"] for line in messages], event.removeprefix(self.event)))


class Desk:
    def __init__(self) -> None:
        self.runner = Runner()
        numbers = itertools.count(1)
        self.endpoint = McpEndpoint(cast(ProtocolRunner, self.runner), lambda: next(numbers), lambda: cast(Any, None))

    def post(self, body: bytes = PING, **more: Any) -> Client:
        return self.ask(Route.POST, body, **more)

    def ask(self, route: Route, body: bytes = b"", origin: Origin = Origin.GUEST, **more: Any) -> Client:
        client = Client()
        self.endpoint.handle(client, Admitted(route, TOKEN, origin, **more), body)
        return client

    def session(self) -> str:
        client = self.post(HELLO)
        self.runner.answer(max(self.runner.there), {})
        return str(client.said[0][2][1])


def play(test: Callable[[Desk], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            await test(Desk())

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@play
async def test_a_request_without_session(desk: Desk) -> None:
    client = desk.post(b"\n" + PING.replace(b",", b",\r\n "))
    assert b"\n" not in desk.runner.heard[0][1]
    desk.runner.answer(1, {"a": 1})
    assert client.said == [(200, '{"jsonrpc":"2.0","id":1,"result":{"a":1}}')]
    assert not desk.endpoint.exchanges
    assert client.reply is None


@play
async def test_a_long_body_goes_in_by_slices(desk: Desk) -> None:
    desk.runner.slices = 3
    desk.post()
    assert not desk.runner.heard
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert desk.runner.heard == [(1, PING)]


@play
async def test_a_notification_has_no_answer_and_a_batch_has_a_list(desk: Desk) -> None:
    assert desk.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}').said == [(202, "")]
    client = desk.post(b" [" + PING + b"," + PING + b"]")
    desk.runner.answer(2, 1, 2)
    assert [entry["result"] for entry in json.loads(client.said[0][1])] == [1, 2]
    assert desk.post(b" \n").said == [400]


@play
async def test_an_answer_that_takes_too_much_memory_is_dropped_while_it_grows(desk: Desk) -> None:
    client, other = desk.post(), desk.post()
    exchange = desk.runner.there[1]
    for sent in range(1, 6):
        assert 1 in desk.runner.there
        exchange.send(bytes(1 << 20))
        assert exchange.unread == sent << 20
    assert 1 not in desk.runner.there
    assert json.loads(client.said[0][1])["error"]["message"] == "too much"
    desk.runner.answer(2, {})
    assert other.said[0][0] == 200


@play
async def test_a_session_by_its_id(desk: Desk) -> None:
    session = desk.session()
    client = desk.post(session=session)
    desk.runner.answer(2, {})
    assert client.said[0][0] == 200
    assert desk.runner.agents == ["tester", "tester"]
    assert desk.post(session=session[:-1] + "x").said == [404]
    assert desk.ask(Route.DELETE).said == [404]
    assert desk.ask(Route.DELETE, session=session).said == [(200, "")]
    assert desk.post(session=session).said == [404]
    assert desk.ask(Route.DELETE, session=session).said == [404]


@play
async def test_requests_take_turns_by_session_or_as_those_of_guests_without_one(desk: Desk) -> None:
    one, other = desk.session(), desk.session()
    for session in (one, other, one, "", ""):
        desk.post(session=session)
    for _ in range(2):
        desk.post(origin=Origin.USER)
    assert desk.runner.flows == [1, 2, 1, 2, 1, 6, 6, 8, 9]


@play
async def test_a_cancellation_reaches_the_other_requests_of_its_session_alone(desk: Desk) -> None:
    session, other = desk.session(), desk.session()
    desk.post(session=session)
    desk.post(session=other)
    cancel = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    assert desk.post(cancel, session=session).said == [(202, "")]
    assert [number for number, line in desk.runner.heard if line == cancel] == [3, 5]


@play
async def test_a_cancellation_may_end_more_than_the_request_that_it_names(desk: Desk) -> None:
    session = desk.session()
    clients = [desk.post(session=session), desk.post(session=session)]
    work = desk.runner.work

    def work_and_end_both(conn: Exchange, lines: deque[bytes]) -> bool:
        more = work(conn, lines)
        for exchange in list(desk.runner.there.values()):
            exchange.close()
        return more

    desk.runner.work = work_and_end_both  # type: ignore[method-assign]
    cancel = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    assert desk.post(cancel, session=session).said == [(202, "")]
    assert [client.said for client in clients] == [[(202, "")]] * 2


@play
async def test_whoever_hangs_up_does_not_end_the_call(desk: Desk) -> None:
    client = desk.post()
    assert client.reply is not None
    client.reply.lost()
    assert 1 in desk.runner.there
    desk.runner.answer(1, {})
    assert client.said == []
    assert not desk.endpoint.exchanges


@play
async def test_in_the_newest_version_that_is_how_one_cancels(desk: Desk) -> None:
    client = desk.post(version="2026-07-28")
    assert client.reply is not None
    client.reply.lost()
    assert not desk.runner.there
    assert not desk.endpoint.exchanges


@play
async def test_the_newest_version_asks_instead_of_greeting(desk: Desk) -> None:
    client = desk.post(PING.replace(b"ping", b"server/discover"), version="2026-07-28")
    assert '"supportedVersions":["2026-07-28"' in client.said[0][1]
    assert not desk.runner.heard
    client = desk.post(PING.replace(b"ping", b"tools/list"), version="2026-07-28")
    desk.runner.answer(1, {"tools": []})
    assert json.loads(client.said[0][1])["result"]["resultType"] == "complete"


@play
async def test_too_many_at_once(desk: Desk) -> None:
    for _ in range(mod.MOST_WITH_GUESTS):
        desk.post()
    assert desk.post().said == [503]
    desk.runner.answer(1, {})
    assert desk.post().said == []
    for _ in range(mod.MOST_EXCHANGES - mod.MOST_WITH_GUESTS):
        assert desk.post(origin=Origin.USER).said == [], "guests don't keep the user out"
    assert desk.post(origin=Origin.USER).said == [503]
    assert desk.runner.origins == [Origin.GUEST] * 129 + [Origin.USER] * 128


@pytest.mark.parametrize("route", [Route.GET, Route.DELETE])
def test_what_nobody_offers(route: Route) -> None:
    @play
    async def run(desk: Desk) -> None:
        session = desk.session()
        if route is Route.GET:
            assert desk.ask(route, session=session).said == [405]
            assert desk.ask(route, session=session, last_event="x").said == [404]
            assert desk.ask(route, last_event="x").said == [404]

    run()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mod, "STREAM_AFTER_S", 0.0)


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("at_once")
def test_an_answer_that_takes_long_becomes_a_stream() -> None:
    @play
    async def run(desk: Desk) -> None:
        session = desk.session()
        client = desk.post(streams=True, session=session, version="2025-11-25")
        older = desk.post(streams=True, session=session, version="2025-03-26")
        without = desk.post(streams=True)
        plain = desk.post(session=session)
        await settled()
        for number in range(2, 6):
            desk.runner.answer(number, number)
        assert client.said == [("stream", True, True), ("events", [2], ".1")]
        assert older.said == [("stream", True, False), ("events", [3], ".1")]
        assert without.said == [("stream", False, False), ("events", [4], "")]
        assert plain.said[0][0] == 200

    run()


@pytest.mark.usefixtures("at_once")
def test_whoever_comes_back_gets_the_answer() -> None:
    @play
    async def run(desk: Desk) -> None:
        session = desk.session()
        asked: Any = {"session": session, "version": "2025-11-25"}
        client = desk.post(streams=True, **asked)
        await settled()
        assert client.reply is not None
        client.reply.lost()
        early = desk.ask(Route.GET, last_event=client.event, **asked)  # before there is an answer
        assert early.said == [("stream", True, True)]
        assert early.reply is not None
        again = desk.ask(Route.GET, last_event=client.event, **asked)
        assert early.said == [("stream", True, True), ("events", [], ".1")], "it does not wait for ever"
        early.reply.lost()  # noticed late: the client is listening already
        desk.runner.answer(2, "late")
        assert again.said == [("stream", True, True), ("events", ["late"], ".1")]
        assert client.said == [("stream", True, True)]
        assert desk.ask(Route.GET, last_event=client.event, **asked).said == [404]

        client = desk.post(streams=True, **asked)
        await settled()
        assert client.reply is not None
        client.reply.lost()
        desk.runner.answer(3, "kept")
        last = desk.ask(Route.GET, last_event=client.event, **asked)
        assert last.said == [("stream", True, True), ("events", ["kept"], ".1")]

    run()
