"""One session as root on a user's palace: sudo, or a container's root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work on another user's palace")
OWNER = 54321

# The owner's side, without a program of ours: root's interpreter may be out of reach for others.
ASK = """
import json, os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock.connect(sys.argv[1])
sock.sendall(sys.argv[3].encode() + b"\\n")
print(sock.makefile().readline())
"""
OPEN = """
import os, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for folder, _, names in os.walk(sys.argv[2]):
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            os.close(os.open(path, os.O_RDWR))
"""


def as_owner(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *args], text=True, capture_output=True, check=False)


def ask(world: World, tool: str, **arguments: object) -> dict[str, object]:
    params = {"name": f"mempalace_{tool}", "arguments": arguments}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    done = as_owner(ASK, str(world.state_root / "broker.sock"), str(OWNER), line)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_the_owner_is_not_locked_out(world: World) -> None:
    for folder in (world.root, *(path for path in world.root.rglob("*") if not path.is_symlink())):
        os.chown(folder, OWNER, OWNER)
    with world.shim() as shim:
        shim.initialize()
        assert shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits")["success"]
        assert shim.call_tool("kg_add", subject="ada", predicate="wrote", object="program")
        assert "result" in ask(world, "add_drawer", wing="w", room="r", content="beside root's broker")
        secret = ask(world, "mine", source=str(Path(__file__).parent), wing="w")
        assert "error" in secret, "root's rights are nobody else's"
    assert world.cli("stop").returncode == 0
    left = [path for path in world.state_root.rglob("*") if path.lstat().st_uid != OWNER]
    assert left == []
    opened = as_owner(OPEN, str(OWNER), str(world.state_root))
    assert opened.returncode == 0, opened.stderr
