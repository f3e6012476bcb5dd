"""`mempalace-broker setup` with the real programs: each lists the server as connected, and then no longer."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness
from tests.clients.sdk import node_client, require
from tests.clients.test_harnesses import QUIET
from tests.harness import World, eventually
from tests.terminal import Terminal

pytestmark = pytest.mark.clients
# What each says of a server that it has connected to.
CONNECTED = {
    "claude": r"mempalace: \S*mp-shim\s+- ✔ Connected",
    "opencode": r"✓ mempalace connected",
    "gemini": r"✓ mempalace: .* - Connected",
    "qwen": r"✓ mempalace: .* - Connected",
}


@pytest.fixture
def world() -> Iterator[World]:
    require("node")
    harness.require_engine("newest")
    with World("newest") as made:
        programs = Path(node_client("claude")).parent
        made.env |= {**QUIET, "PATH": f"{made.env['PATH'].split(':')[0]}:{programs}:/usr/local/bin:/usr/bin:/bin"}
        (made.home / ".gemini").mkdir()
        trusted = json.dumps({str(made.cwd): "TRUST_FOLDER"})  # else it starts no server there
        (made.home / ".gemini/trustedFolders.json").write_text(trusted)
        yield made


def test_each_lists_the_server_as_connected_and_forgets_it(world: World) -> None:
    done = world.cli("setup", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(CONNECTED) <= set(json.loads(done.stdout)["changed"])
    for program, said in CONNECTED.items():
        listed = world.run(node_client(program), "mcp", "list", timeout=90)
        assert re.search(said, re.sub(r"\x1b\[[0-9;]*m", "", listed.stdout + listed.stderr)), listed
    assert world.cli("setup", "--remove", "--yes").returncode == 0
    for program in CONNECTED:
        listed = world.run(node_client(program), "mcp", "list", timeout=90)
        assert "mp-shim" not in listed.stdout + listed.stderr


CONTINUE = """\
name: Local
version: 1.0.0
schema: v1
models:
  - {name: none, provider: openai, model: none, apiBase: "http://127.0.0.1:9/v1", apiKey: none}
"""


def agent_of(world: World) -> str:
    """The agent of the one session, once it was answered `initialize` and `tools/list`."""
    return next((one["agent"] or "" for one in world.broker().status()["sessions"] if one["answered"] > 1), "")


def test_continue_connects_to_the_server(world: World) -> None:
    """Its command line has no list of servers, but a screen that names them; an account is not needed."""
    config = world.home / ".continue" / "config.yaml"
    config.parent.mkdir()
    config.write_text(CONTINUE)
    done = world.cli("setup", "--yes", "--json", "--only", "continue")
    assert json.loads(done.stdout)["changed"] == ["continue"]
    env = {**world.env, "TERM": "xterm-256color", "CONTINUE_TELEMETRY_ENABLED": "0"}
    terminal = Terminal(node_client("cn"), "--config", str(config), env=env, cwd=world.cwd)
    try:
        terminal.resize(40, 120)
        terminal.sees("- mempalace", 90)
        eventually(lambda: agent_of(world).startswith("continue"), 90, "its session, with the tools that it asked for")
    finally:
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.hang_up()
    assert world.cli("setup", "--remove", "--yes").returncode == 0
    assert config.read_text() == CONTINUE
