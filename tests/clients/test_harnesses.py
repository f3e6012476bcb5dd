"""Whole programs that speak MCP, on mp-shim with the real engine: the Inspector, opencode, Claude Code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.clients.sdk import node_client, require, server_program
from tests.harness import World, eventually

pytestmark = pytest.mark.clients
newest = pytest.mark.parametrize("engine", ["newest"], indirect=True)
QUIET = {
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "NO_COLOR": "1",
}


@pytest.fixture(autouse=True)
def _installed() -> None:
    require("node")


def run(world: World, name: str, *args: str) -> str:
    """Run one of the programs with the engine on its PATH, as an installed one is: some pass little else on."""
    assert world.engine is not None
    path = f"{harness.engine_python(world.engine).parent}:{world.env['PATH']}"
    done = world.run(node_client(name), *args, timeout=60, env={**QUIET, "PATH": path})
    assert done.returncode == 0, done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def inspect(world: World, method: str, *args: str, server: str = "mp-shim") -> Any:
    """What the Inspector prints of one request."""
    program = server_program(world, server)
    return json.loads(run(world, "mcp-inspector", "--cli", program, "--method", method, *args))


def opencode_list(world: World) -> str:
    """`opencode mcp list`: it connects to every server."""
    server = {"type": "local", "command": [server_program(world, "mp-shim")], "enabled": True, "timeout": 30000}
    config = {"$schema": "https://opencode.ai/config.json", "autoupdate": False, "mcp": {"mempalace": server}}
    (world.cwd / "opencode.json").write_text(json.dumps(config), encoding="utf-8")
    return run(world, "opencode", "mcp", "list")


def claude_list(world: World) -> str:
    """`claude mcp list`: it connects to every server."""
    server = {"type": "stdio", "command": server_program(world, "mp-shim"), "args": []}
    (world.home / ".claude.json").write_text(json.dumps({"mcpServers": {"mempalace": server}}), encoding="utf-8")
    return run(world, "claude", "mcp", "list")


def test_the_inspector_gets_what_it_gets_from_bare_mempalace(world: World) -> None:
    listed = inspect(world, "tools/list")
    if world.engine == "newest":  # the schema of 3.4.0's diary_write is normalised on its way
        assert listed == inspect(world, "tools/list", server="mempalace-mcp")
    assert len(listed["tools"]) == len(inspect(world, "tools/list", server="mempalace-mcp")["tools"])
    args = ["--tool-name", "mempalace_add_drawer"]
    for pair in ("wing=w", "room=r", "content=by the inspector"):
        args += ["--tool-arg", pair]
    added = inspect(world, "tools/call", *args)
    drawer = json.loads(added["content"][0]["text"])["drawer_id"]
    got = inspect(world, "tools/call", "--tool-name", "mempalace_get_drawer", "--tool-arg", f"drawer_id={drawer}")
    assert json.loads(got["content"][0]["text"])["content"] == "by the inspector"


def test_opencode_and_claude_code_connect(world: World) -> None:
    assert "✓ mempalace connected" in opencode_list(world)  # it starts the broker
    assert re.search(r"mempalace: \S*mp-shim\s+- ✔ Connected", claude_list(world))
    eventually(lambda: len(world.brokers()) == 1, what="one broker, any that lost a race gone")


@newest
def test_setup_writes_what_they_read_and_takes_it_out(world: World) -> None:
    path = f"{Path(node_client('claude')).parent}:{world.env['PATH']}"

    def setup(*options: str) -> dict[str, str]:
        only = ("--only", "claude", "--only", "opencode")
        done = world.cli("setup", "--json", "--yes", *only, *options, env={**QUIET, "PATH": path})
        assert done.returncode == 0, done.stderr
        return {row["agent"]: row["outcome"] for row in json.loads(done.stdout)["agents"]}

    assert setup() == {"claude": "add", "opencode": "add"}
    assert "✓ mempalace connected" in run(world, "opencode", "mcp", "list")
    assert re.search(r"mempalace: \S*mp-shim\s+- ✔ Connected", run(world, "claude", "mcp", "list"))
    assert setup() == {"claude": "unchanged", "opencode": "unchanged"}
    setup("--remove")
    assert "mp-shim" not in run(world, "opencode", "mcp", "list") + run(world, "claude", "mcp", "list")


@newest
def test_all_of_them_at_once_on_a_cold_palace(world: World) -> None:
    jobs: list[Callable[[], str]] = [
        lambda: json.dumps(inspect(world, "tools/list")),
        lambda: opencode_list(world),
        lambda: claude_list(world),
    ]
    with world.watch_owners() as watch, ThreadPoolExecutor(3) as pool:
        tools, opencode, claude = pool.map(lambda job: job(), jobs)
    assert "mempalace_search" in tools
    assert "connected" in opencode
    assert "Connected" in claude
    assert watch.most <= 1
    eventually(lambda: len(world.brokers()) == 1, what="one broker, any that lost a race gone")
