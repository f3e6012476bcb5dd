"""What real MCP clients do to a stdio server, each as seen on the wire, replayed without the client.

tests/clients runs the clients themselves; this needs none of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mempalace_broker.errors import METHOD_NOT_FOUND
from tests import harness
from tests.harness import RpcProcess, World, eventually
from tests.proctools import is_running

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("manners")]  # one world for all
PROTOCOLS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
PROMPT_S = 3.0  # what must be answered at once; generous, for a loaded test machine


@pytest.fixture
def cold() -> Iterator[World]:
    """A world without a broker."""
    harness.require_engine("newest")
    with World("newest") as world:
        yield world


def initialize(id_: Any = 0, protocol: str = "2025-11-25") -> dict[str, Any]:
    params = {"protocolVersion": protocol, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    return {"jsonrpc": "2.0", "id": id_, "method": "initialize", "params": params}


def cancelled(id_: Any) -> dict[str, Any]:
    params = {"requestId": id_, "reason": "AbortError: The operation was aborted."}
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}


def discover(shim: RpcProcess) -> dict[str, Any]:
    """The probe of the newest clients, before `initialize`, with a string id."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    return shim.request("server/discover", {"_meta": meta}, PROMPT_S, id_="server-discover-probe-1")


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


# --- how they begin


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_discover_first(state: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(state)
    shim = world.shim()
    answer = discover(shim)
    assert answer["id"] == "server-discover-probe-1"
    assert answer["error"]["code"] == METHOD_NOT_FOUND
    assert shim.initialize(PROMPT_S)["serverInfo"]["name"] == "mempalace"
    assert shim.call_tool("kg_stats")["triples"] == 0
    assert shim.untaken() == []
    assert shim.finish() == 0


@pytest.mark.parametrize("reaped", [True, False])
def test_typescript_in_auto_mode_spawns_twice(cold: World, reaped: bool) -> None:
    probe = cold.shim()
    assert discover(probe)["error"]["code"] == METHOD_NOT_FOUND
    probe.signal(signal.SIGTERM)  # it has started a broker, and holds the start lock
    if reaped:
        assert probe.wait(PROMPT_S) == 128 + signal.SIGTERM
    shim = cold.shim()
    answer = shim.initialize(PROMPT_S)
    assert answer["serverInfo"]["version"] != "unknown", "answered without a broker, for there was none within 2 s"
    assert shim.call_tool("kg_stats")["triples"] == 0
    eventually(lambda: len(cold.brokers()) == 1, what="one broker, any other one gone")
    assert probe.wait(PROMPT_S) == 128 + signal.SIGTERM


def test_an_agent_that_keeps_talking_while_the_broker_starts(cold: World) -> None:
    shim = cold.shim()
    started = time.monotonic()
    shim.send(initialize())
    for number in range(1, 40):  # every message wakes the shim's loop while it waits for the broker's word
        shim.request("ping", timeout=PROMPT_S)
        if number % 10 == 0:
            shim.notify("notifications/progress", {"progressToken": 1, "progress": number})
    assert shim.wait_response(0, 10)["result"]["serverInfo"]["name"] == "mempalace"
    shim.notify("notifications/initialized")
    assert shim.call_tool("kg_stats", timeout=20)["triples"] == 0
    assert time.monotonic() - started < 20, "the shim missed the broker's word that it serves"


def test_everything_in_one_write_on_a_cold_machine(cold: World) -> None:
    shim = cold.shim()
    add = {"wing": "w", "room": "r", "content": "said before anybody listened"}
    shim.send_bytes(
        lines(
            initialize(),
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
            {
                "jsonrpc": "2.0",
                "id": 2,
                "method": "tools/call",
                "params": {"name": "mempalace_add_drawer", "arguments": add},
            },
            {
                "jsonrpc": "2.0",
                "id": 3,
                "method": "tools/call",
                "params": {"name": "mempalace_list_drawers", "arguments": {}},
            },
        )
    )
    assert shim.wait_response(0)["result"]["protocolVersion"] == "2025-11-25"
    assert len(shim.wait_response(1)["result"]["tools"]) > 20
    assert harness.payload(shim.wait_response(2))["success"] is True
    assert len(harness.payload(shim.wait_response(3))["drawers"]) == 1


def test_the_protocol_is_negotiated_as_mempalace_does(warm: World) -> None:
    shim, bare = warm.shim(), warm.bare()
    for asked in [*PROTOCOLS, "2026-07-28", "1999-01-01", ""]:
        answers = []
        for server in (shim, bare):
            server.send(initialize(protocol=asked))
            answers.append(server.wait_response(0))
        assert answers[0] == answers[1]
        assert answers[0]["result"]["protocolVersion"] == (asked if asked in PROTOCOLS else PROTOCOLS[0])


def test_initialize_twice_and_calls_before_it(warm: World) -> None:
    shim = warm.shim()
    assert shim.call_tool("kg_stats")["triples"] == 0
    assert shim.initialize() == shim.initialize()
    assert shim.call_tool("kg_stats")["triples"] == 0


def test_undeclared_methods_are_refused_at_once(warm: World) -> None:
    shim = warm.shim()
    shim.initialize()
    for method in (
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "logging/setLevel",
        "completion/complete",
    ):
        assert shim.request(method, {}, PROMPT_S)["error"]["code"] == METHOD_NOT_FOUND


# --- cancellation


def test_opencode_cancels_every_call_that_is_done(warm: World) -> None:
    shim = warm.shim()
    shim.send(initialize())
    shim.wait_response(0)
    shim.send(cancelled(0))
    before = warm.broker().status()["counters"]["cancelled"]
    for number in range(1, 30):
        shim.request("tools/call", {"name": "mempalace_kg_stats", "arguments": {}}, id_=number)
        shim.send(cancelled(number))
    assert shim.request("ping", id_=1)["result"] == {}  # an id that was cancelled may come again
    assert shim.untaken() == []
    assert warm.broker().status()["counters"]["cancelled"] == before


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_pi_supersedes_its_first_process_within_a_millisecond(state: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(state)
    first = world.shim()
    first.send_bytes(lines(initialize(), cancelled(0)))
    first.close_stdin()
    second = world.shim()
    second.initialize(PROMPT_S)
    assert first.wait(PROMPT_S) == 0
    assert second.call_tool("kg_stats")["triples"] == 0
    eventually(lambda: len(world.brokers()) == 1, what="one broker, the one that lost the race gone")


# --- how they end


def test_claude_code_interrupts_then_terminates_with_stdin_open(warm: World) -> None:
    shim, other = warm.shim(), warm.shim()
    shim.initialize()
    drawer = shim.call_tool("add_drawer", wing="w", room="claude", content="said just before the end")["drawer_id"]
    shim.signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):  # alive after 0.1 s is fine: that is what SIGTERM is for
        shim.wait(0.1)
    shim.signal(signal.SIGTERM)
    assert shim.wait(PROMPT_S) in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    assert other.call_tool("get_drawer", drawer_id=drawer)["content"] == "said just before the end"


def test_codex_terminates_then_kills(warm: World) -> None:
    shim, other = warm.shim(), warm.shim()
    shim.initialize()
    drawer = shim.call_tool("add_drawer", wing="w", room="codex", content="acknowledged is stored")["drawer_id"]
    shim.close_stdin()
    shim.signal(signal.SIGTERM)
    shim.kill()
    assert other.call_tool("get_drawer", drawer_id=drawer)["content"] == "acknowledged is stored"


def test_a_group_kill_spares_the_broker(cold: World) -> None:
    shim = cold.shim()  # it starts the broker, and leads a process group of its own
    shim.initialize()
    broker = cold.broker()
    drawer = shim.call_tool("add_drawer", wing="w", room="r", content="outlives its agent")["drawer_id"]
    os.killpg(shim.pid, signal.SIGKILL)
    shim.wait(5)
    assert broker.running
    other = cold.shim()
    assert other.call_tool("get_drawer", drawer_id=drawer)["content"] == "outlives its agent"
    assert cold.broker().pid == broker.pid


def test_the_sdks_close_stdin_and_expect_the_end(warm: World) -> None:
    shim = warm.shim()
    shim.initialize()
    started = time.monotonic()
    assert shim.finish() == 0
    assert time.monotonic() - started < 2.0, "the SDKs send SIGTERM after 2 s"


def test_a_call_in_flight_at_the_end_of_stdin_is_finished(warm: World) -> None:
    shim = warm.shim()
    shim.initialize()
    call = shim.start_call("add_drawer", wing="w", room="eof", content="asked, then hung up")
    shim.close_stdin()
    assert harness.payload(shim.wait_response(call))["success"] is True
    assert shim.wait(PROMPT_S) == 0


def test_a_session_ends_with_its_shim(warm: World) -> None:
    def agents() -> set[str]:
        return {session["agent"] for session in warm.broker().status()["sessions"]}

    shim = warm.shim()
    shim.initialize(client="the-one-that-ends")
    eventually(lambda: "the-one-that-ends" in agents(), what="its session")
    shim.close_stdin()
    shim.wait(PROMPT_S)
    eventually(lambda: "the-one-that-ends" not in agents(), what="the session to end with its shim")


# --- what they pass on


def filtered(world: World) -> RpcProcess:
    """A shim as Codex and the SDKs start it: hardly any environment, so the engine must be found on PATH."""
    engine_bin = harness.engine_python("newest").parent
    program = shutil.which("mp-shim", path=world.env["PATH"])
    assert program is not None
    kept = {name: world.env[name] for name in ("HOME", "USER", "SHELL", "TERM", "LANG", harness.PRIVATE)}
    kept["PATH"] = f"{engine_bin}:{world.env['PATH']}"
    return world.spawn(["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in kept.items()), program])


def full(world: World) -> RpcProcess:
    """A shim as opencode starts it: with all that a desktop session has."""
    runtime = world.root / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    desktop = {
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_STATE_HOME": str(world.home / ".state"),
        "SSH_AUTH_SOCK": str(runtime / "agent"),
        "DISPLAY": ":0",
        "LOGNAME": "tester",
    }
    return world.shim(env=desktop)


@pytest.mark.parametrize("filtered_first", [True, False])
def test_a_filtered_environment_finds_the_same_broker(cold: World, filtered_first: bool) -> None:
    starters = [filtered, full] if filtered_first else [full, filtered]
    shims = []
    for start in starters:
        shims.append(start(cold))
        shims[-1].initialize()
        shims[-1].call_tool("kg_add", subject="env", predicate="seen by", object=f"client {len(shims)}")
    assert [len(shim.call_tool("kg_query", entity="env")["facts"]) for shim in shims] == [2, 2]
    eventually(lambda: len(cold.brokers()) == 1, what="one broker, any other one gone")
    if filtered_first:  # its broker has no mark of this world: end it here
        broker = cold.broker()
        for shim in shims:
            shim.finish()
        broker.signal(signal.SIGTERM)
        eventually(lambda: not is_running(broker.pid), what="the end of the broker")


# --- how they follow a call that takes long


def test_a_client_that_gave_a_token_is_told_how_its_call_gets_on(cold: World) -> None:
    shim = cold.shim()
    shim.initialize()
    engine = cold.broker().engine_pid()
    os.kill(engine, signal.SIGSTOP)
    call = {"name": "mempalace_list_wings", "arguments": {}, "_meta": {"progressToken": "tok-1"}}
    id_ = shim.start_request("tools/call", call)

    def told() -> list[dict[str, Any]]:
        said = [json.loads(line) for line in shim.lines]
        return [one["params"] for one in said if one.get("method") == "notifications/progress"]

    eventually(lambda: len(told()) >= 2, 30.0, "two progress notifications")
    os.kill(engine, signal.SIGCONT)
    assert "error" not in shim.wait_response(id_)
    first, second = told()[:2]
    assert first["progressToken"] == second["progressToken"] == "tok-1"
    assert 0 < first["progress"] < second["progress"]
    assert "running for" in second["message"]
