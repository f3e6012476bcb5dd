"""`mempalace-broker setup` with the real programs: each lists the server as connected, and then no longer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness
from tests.clients.sdk import node_client, require
from tests.clients.test_harnesses import QUIET
from tests.harness import World

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
