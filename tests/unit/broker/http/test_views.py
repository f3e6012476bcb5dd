"""The page's requests and the metrics, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from mempalace_broker.broker.http.machine.gate import PAGE_FILES, Admitted, Refusal, Route
from mempalace_broker.broker.http.machine.page_access import PageAccess
from mempalace_broker.broker.http.views import Views
from mempalace_broker.broker.tasks import Tasks
from mempalace_broker.system.loopback_peer import LoopbackPeer

NOW, PORT = 1_795_000_000.0, 21_000


class Client:
    """A connection: what it was answered."""

    def __init__(self) -> None:
        self.reply: Any = None
        self.peer = LoopbackPeer(None, None)
        self.status = 0
        self.body = b""
        self.headers: dict[str, str] = {}

    def respond(self, status: int, body: bytes, *headers: tuple[str, str], kind: str = "application/json") -> None:
        assert self.reply is None
        self.status, self.body, self.headers = status, body, {**dict(headers), "Content-Type": kind}

    def refuse(self, refusal: Refusal) -> None:
        self.respond(refusal.status, refusal.text.encode())


class Calls:
    """What an endpoint is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def ask(self, client: Client, session: Any, line: bytes, headers: list[tuple[str, str]]) -> None:
        assert session.agent == "page"
        self.asked.append(json.loads(line)["params"])
        client.respond(200, b"{}", *headers)


class Desk:
    def __init__(self, health: Callable[[], Any] | None = None) -> None:
        self.calls = Calls()
        self.access = PageAccess(lambda: b"\x07" * 16)
        self.access.secret = "d1" * 32
        self.failed: list[str] = []
        self.views = Views(
            cast(Any, self.calls),
            self.access,
            status=lambda: {"broker": {"state": "serving"}},
            health=health or self.well,
            tasks=Tasks(lambda name, _: self.failed.append(name)),
            now=lambda: NOW,
        )

    async def well(self) -> bytes:
        return b'{"ok": true}'

    def get(self, detail: str, route: Route = Route.PAGE_DATA, peer: LoopbackPeer | None = None) -> Client:
        client = Client()
        client.peer = peer or client.peer
        self.views.handle(cast(Any, client), Admitted(route, detail=detail), PORT)
        return client


@pytest.mark.parametrize("path", PAGE_FILES)
def test_the_files_come_with_a_policy_that_lets_nothing_else_in(path: str) -> None:
    client = Desk().get(path, Route.PAGE_FILE)
    assert client.status == 200
    assert client.body
    assert "default-src 'none'" in client.headers["Content-Security-Policy"]
    assert "unsafe" not in client.headers["Content-Security-Policy"]
    assert client.headers["X-Content-Type-Options"] == "nosniff"
    assert b"https://" not in client.body
    assert b"innerHTML" not in client.body


def test_a_code_gives_a_cookie_and_a_key_once() -> None:
    desk = Desk()
    code = desk.access.new_code(NOW)
    client = desk.get(code, Route.PAGE_LOGIN)
    cookie, *rules = client.headers["Set-Cookie"].split("; ")
    assert set(rules) == {"Path=/page/", "Max-Age=86400", "HttpOnly", "SameSite=Strict"}
    name, _, value = cookie.partition("=")
    assert name == f"mempalace-page-{PORT}"
    assert desk.access.permits(value, json.loads(client.body)["key"], NOW)
    assert desk.get(code, Route.PAGE_LOGIN).status == 401


@pytest.mark.parametrize(
    ("route", "status"),
    [(Route.PAGE_FILE, 200), (Route.PAGE_LOGIN, 403), (Route.PAGE_PROOF, 403), (Route.PAGE_DATA, 403)],
)
def test_another_users_program(route: Route, status: int) -> None:
    stranger = LoopbackPeer(None, None)
    stranger.is_of_another_user = True
    desk = Desk()
    detail = {Route.PAGE_FILE: "/", Route.PAGE_LOGIN: desk.access.new_code(NOW)}.get(route, "status")
    client = desk.get(detail, route, stranger)
    assert client.status == status
    assert "Set-Cookie" not in client.headers


def test_a_wrong_code_is_refused_before_the_system_is_asked() -> None:
    stranger = LoopbackPeer(None, None)
    assert Desk().get("07" * 16, Route.PAGE_LOGIN, stranger).status == 401
    assert "is_of_another_user" not in vars(stranger)


def test_the_proof_is_what_the_gate_found() -> None:
    client = Desk().get("07" * 32, Route.PAGE_PROOF)
    assert (client.status, client.body) == (200, b"07" * 32)


def test_of_the_memory_there_are_two_questions() -> None:
    desk = Desk()
    assert desk.get("rooms").status == 200
    assert desk.get("search?query=+the+fox+&wing=alpha&limit=1000&room=").status == 200
    assert desk.get("search?query=" + "x" * 999).headers["Cache-Control"] == "no-store"
    assert desk.calls.asked == [
        {"name": "mempalace_get_taxonomy", "arguments": {}},
        {"name": "mempalace_search", "arguments": {"query": "the fox", "limit": 10, "wing": "alpha"}},
        {"name": "mempalace_search", "arguments": {"query": "x" * 250, "limit": 10}},
    ]


@pytest.mark.parametrize("detail", ["search", "search?query=+", "search?query", "drawers", "", "status/x"])
def test_all_else_is_not_there(detail: str) -> None:
    desk = Desk()
    assert desk.get(detail).status == 404
    assert not desk.calls.asked


def test_the_status_is_the_snapshot() -> None:
    assert json.loads(Desk().get("status").body) == {"broker": {"state": "serving"}}


async def settled(client: Client) -> None:
    for _ in range(10):  # turns of the loop; it needs three
        await asyncio.sleep(0)
    assert client.reply is None


def test_doctor_answers_later() -> None:
    async def work() -> None:
        client = Desk().get("health")
        assert not client.status
        await settled(client)
        assert (client.status, client.body) == (200, b'{"ok": true}')

    asyncio.run(work())


def test_what_fails_is_answered_and_reported() -> None:
    async def fails() -> bytes:
        raise ValueError("a bug")

    async def work() -> None:
        desk = Desk(fails)
        client = desk.get("health")
        await settled(client)
        await asyncio.sleep(0)
        assert client.status == 500
        assert b"a bug" not in client.body
        assert desk.failed == ["view"]

    asyncio.run(work())


def test_whoever_hangs_up_gets_nothing() -> None:
    async def work() -> None:
        desk = Desk()
        client = desk.get("health")
        reply, client.reply = client.reply, None
        reply.lost()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not client.status
        assert not desk.failed

    asyncio.run(work())
