"""MCP over HTTP with a real broker and engine, on raw sockets; the official SDKs are in tests/clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from mempalace_broker.broker.http.eviction import MOST
from mempalace_broker.errors import METHOD_NOT_FOUND
from tests import proctools
from tests.harness import World, eventually, payload

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("http")]  # one world for all

KG_STATS = {"name": "mempalace_kg_stats", "arguments": {}}


class Door:
    """The listener of a world's broker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.token = world.cli("token", "--http").stdout.strip()

    @property
    def port(self) -> int:
        return self.world.broker().http_port()

    def send(self, method: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}", **named}
        with contextlib.closing(connection):
            connection.request(method, "/mcp", None if body is None else json.dumps(body).encode(), given)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def ask(self, method: str, params: object = None, **headers: str) -> dict[str, Any]:
        """A request that is answered with 200."""
        status, _, body = self.send("POST", {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}, **headers)
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        assert answer["id"] == 7
        return answer


@pytest.fixture(scope="module")
def world(warm: World) -> World:
    return warm


@pytest.fixture
def door(world: World) -> Iterator[Door]:
    made = Door(world)
    yield made
    assert payload(made.ask("tools/call", KG_STATS))["triples"] == 0
    assert made.token not in world.log() + json.dumps(world.broker().status())


def test_a_session_from_greeting_to_end_through_a_restart(world: World, door: Door) -> None:
    status, headers, _ = door.send("POST", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
    session = headers["mcp-session-id"]
    assert status == 200
    before = world.broker().pid, door.port
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)) as kept:
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok"
        sock = kept.sock
        assert world.cli("restart").returncode == 0
        assert world.broker().pid != before[0]
        assert door.port == before[1]  # an agent's configuration stays right
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok"
        assert kept.sock is sock, "the next broker goes on with the connection"
    eventually(lambda: not proctools.is_running(before[0]), what="the end of the old one")
    assert payload(door.ask("tools/call", KG_STATS, Mcp_Session_Id=session))["triples"] == 0
    assert door.send("DELETE", Mcp_Session_Id=session)[0] == 200
    assert door.send("POST", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, Mcp_Session_Id=session)[0] == 404


def test_what_comes_over_http_is_a_guests(world: World, door: Door) -> None:
    assert door.ask("broker/stop")["error"]["code"] == METHOD_NOT_FOUND
    refused = door.ask("tools/call", {"name": "mempalace_mine", "arguments": {"source": str(world.cwd)}})
    assert "guest_folders" in refused["error"]["message"]


def test_who_does_not_get_in(world: World, door: Door) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    before = Counter(world.broker().status()["http"]["refused"])
    assert door.send("POST", ping, Authorization="Bearer " + "0" * 64)[0] == 401
    assert door.send("POST", ping, Host="evil.example")[0] == 403
    assert door.send("POST", ping, Origin="https://evil.example")[0] == 403
    assert Counter(world.broker().status()["http"]["refused"]) - before == {"401": 1, "403": 2}


def test_health_is_one_word_and_needs_no_token(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok")


def test_silent_connections_keep_nobody_out(world: World, door: Door) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST + 50):
            stack.enter_context(socket.create_connection(("127.0.0.1", door.port), 10))
        assert door.ask("ping")["result"] == {}
        assert world.broker().status()["http"]["connections"] <= MOST
    eventually(lambda: world.broker().status()["http"]["connections"] == 0, what="all of them noticed as gone")


def test_a_new_token_shuts_out_the_old_one(world: World, door: Door) -> None:
    old, door.token = door.token, world.cli("token", "--http", "--new").stdout.strip()
    eventually(
        lambda: door.send("POST", {"id": 1}, Authorization=f"Bearer {old}")[0] == 401, what="the old one refused"
    )


def test_off_by_setting() -> None:
    with World(None, env={"MEMPALACE_BROKER_HTTP": "0"}) as world:
        assert world.cli("ensure").returncode == 0
        assert world.broker().status()["http"] is None
