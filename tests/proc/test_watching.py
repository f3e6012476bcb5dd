"""What people and monitors see of a real broker: the live screen, the metrics, the log as JSON, and who does not."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import termios
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mempalace_broker.errors import NOT_ALLOWED
from mempalace_broker.protocol.hello import GUEST, OPEN
from tests import proctools
from tests.harness import RpcError, World, eventually
from tests.pictures import draw_terminal, pictures
from tests.terminal import Terminal

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("watching")]  # one world for all but one


def terminal_of(world: World, *words: str, env: dict[str, str] | None = None) -> Terminal:
    return Terminal("mempalace-broker", *words, env={**world.env, "TERM": "xterm-256color", **(env or {})})


@pytest.fixture(scope="module")
def world(warm: World) -> World:
    return warm


def test_top_on_a_terminal(world: World) -> None:
    world.processes[0].call_tool("kg_stats")
    terminal = terminal_of(world, "top", "--interval", "0.3")
    terminal.sees("serving")
    terminal.sees(str(world.palace)[:30])
    terminal.sees("calls/s")
    terminal.sees("harness")
    terminal.sees("q quit")
    terminal.resize(40, 150)
    terminal.sees(f"{world.palace} ")
    terminal.press(b"x")  # is not a key
    terminal.sees("q quit")
    terminal.press(b"q")
    assert terminal.ended() == 0


def test_how_top_looks_in_the_smallest_terminal(world: World, tmp_path: Path) -> None:
    world.processes[0].call_tool("kg_stats")
    terminal = terminal_of(world, "top", "--interval", "0.2")
    for _ in range(3):
        terminal.sees("q quit")
    terminal.press(b"q")
    assert terminal.ended() == 0
    lines = draw_terminal(terminal.raw, "top-80x24", pictures(tmp_path))
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "q quit" in "".join(lines)


def test_top_gives_the_terminal_back(world: World) -> None:
    terminal = terminal_of(world, "top")
    terminal.sees("q quit")
    terminal.press(b"\x1a")
    eventually(lambda: proctools.state_of(terminal.pid) == "T", what="it stopped")
    assert termios.tcgetattr(terminal.fd)[3] == terminal.before[3]
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.sees("q quit")
    terminal.press(b"\x03")
    assert terminal.ended() == 0
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}])
def test_top_where_nothing_can_be_drawn(world: World, env: dict[str, str]) -> None:
    terminal = terminal_of(world, "top", env=env)
    terminal.sees("lease")
    assert terminal.ended() == 0
    done = world.cli("top")
    assert done.returncode == 0
    assert "calls/s" in done.stdout
    assert "\x1b" not in done.stdout


def test_top_where_only_ascii_can_be_shown(world: World) -> None:
    world.processes[0].call_tool("kg_stats")
    done = world.cli("top", env={"PYTHONIOENCODING": "ascii"})
    (chart,) = [line for line in done.stdout.splitlines() if line.startswith("calls ")]
    assert "?" not in chart
    assert "@" in chart


def test_top_without_colour(world: World) -> None:
    terminal = terminal_of(world, "top", env={"NO_COLOR": "1"})
    terminal.sees("q quit")
    assert not re.search(rb"\x1b\[(3|4|9)\d", terminal.raw), "no colour"
    terminal.press(b"q")
    assert terminal.ended() == 0


class Asker:
    """Requests to the broker's listener for HTTP."""

    def __init__(self, world: World) -> None:
        self.port = world.broker().http_port()

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def test_metrics_of_a_real_broker(world: World) -> None:
    asker = Asker(world)
    world.processes[0].call_tool("kg_stats")
    token = world.cli("token", "--metrics").stdout.strip()
    bearer = {"Authorization": f"Bearer {token}"}
    eventually(lambda: asker.get("/metrics", **bearer)[0] == 200, what="the new token counts")
    text = asker.get("/metrics", **bearer)[1]
    found = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    assert found["mempalace_broker_info"].labels["palace"] == str(world.palace)
    assert "mempalace_kg_stats" in text
    assert asker.get("/mcp", "POST", **bearer)[0] == 401
    assert token not in world.log() + json.dumps(world.broker().status())


def test_a_guest_gets_neither_page_nor_metrics(world: World) -> None:
    asker = Asker(world)
    guest = {"Authorization": f"Bearer {world.cli('token', '--http').stdout.strip()}"}
    for path in ("/metrics", "/page/status", "/page/rooms", "/page/search?query=x", "/page/health"):
        assert asker.get(path, **guest)[0] == 401
        assert asker.get(path)[0] == 401
    shim = world.shim()
    shim.initialize()
    ask = {"jsonrpc": "2.0", "id": 1, "method": GUEST, "params": {}}
    with pytest.raises(RpcError) as refused:
        _as_guest(world, ask)
    assert refused.value.code == NOT_ALLOWED


def _as_guest(world: World, lower: dict[str, object]) -> None:
    """Ask for the page on a connection that has lowered its own rights."""
    import socket

    endpoint = world.broker().record["endpoints"][0].removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rwb") as file:
        sock.connect(endpoint)
        for message in (lower, {"jsonrpc": "2.0", "id": 2, "method": OPEN, "params": {}}):
            file.write(json.dumps(message).encode() + b"\n")
            file.flush()
            answer = json.loads(file.readline())
        raise RpcError(answer["error"]) if "error" in answer else AssertionError(answer)


def test_a_link_works_once(world: World) -> None:
    asker = Asker(world)
    code = json.loads(world.cli("open", "--json").stdout)["url"].partition("#")[2]
    login = {"Authorization": f"Login {code}"}
    assert asker.get("/page/login", "POST", **login)[0] == 200
    assert asker.get("/page/login", "POST", **login)[0] == 401
    assert code not in world.log()


def test_a_log_of_json_names_sessions_and_quotes_no_memory() -> None:
    secret = "the launch code is 0451"
    with World("newest", env={"MEMPALACE_BROKER_LOG_FORMAT": "json", "MEMPALACE_BROKER_LOG_LEVEL": "debug"}) as world:
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", wing="w", room="r", content=secret)
        shim.call_tool("search", query=secret)
        with pytest.raises(RpcError):
            shim.call_tool("no_such_tool", query=secret)
        session = world.broker().status()["sessions"][0]["id"]
        shim.close_stdin()
        eventually(lambda: "ended after" in world.log(), what="the end of the session in the log")
        assert world.cli("stop").returncode == 0
        lines = [json.loads(line) for line in world.log().splitlines()]
        assert secret not in world.log()
        assert "0451" not in world.log()
    assert all({"time", "level", "session", "agent", "message"} <= set(line) for line in lines)
    about = [line["message"] for line in lines if line["session"] == session]
    assert any("began: harness" in text for text in about)
    assert any("ended after" in text for text in about)
    assert any("failed, code" in text for text in about)
