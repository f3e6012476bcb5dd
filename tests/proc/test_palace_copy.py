"""A copy of a palace, broker files and all, is another palace: a backup that is restored, an image of a running box."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.harness import World, eventually, kill_pid


def status(world: World, palace: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(world.cli("status", "--json", "--palace", str(palace)).stdout)
    return found


@pytest.mark.parametrize("alive", [True, False])
def test_a_copy_made_in_the_middle_of_a_call(world: World, alive: bool) -> None:
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("add_drawer", wing="w", room="r", content="before the copy")["success"]
    broker = world.broker()
    engine = broker.engine_pid()
    subprocess.run(["kill", "-STOP", str(engine)], check=True)
    shim.start_call("add_drawer", wing="w", room="r", content="during the copy")
    eventually(lambda: busy(world), what="a lease that says so")
    copy = world.root / "copy"
    subprocess.run(["cp", "-a", str(world.state_root), str(copy)], check=True)
    if alive:
        subprocess.run(["kill", "-CONT", str(engine)], check=True)
    else:
        shim.kill()
        broker.kill()
        kill_pid(engine)
    palace = copy / "palace"
    assert "broker" not in status(world, palace), "the original's broker is not this one's"
    stopped = world.cli("stop", "--now", "--palace", str(palace))
    assert (stopped.returncode, "no broker runs" in stopped.stdout) == (0, True), stopped
    assert broker.running == alive
    with world.shim("--palace", str(palace)) as other:
        other.initialize()
        assert other.call_tool("add_drawer", wing="w", room="r", content="into the copy")["success"]
        assert len(world.brokers()) == 1 + alive
    assert "broker" in status(world, palace)
    restarted = world.cli("restart", "--palace", str(palace))
    assert restarted.returncode == 0, restarted.stderr
    assert world.cli("stop", "--palace", str(palace)).returncode == 0
    assert broker.running == alive
    if alive:
        texts = [found["text"] for found in shim.call_tool("search", query="copy")["results"]]
        assert "into the copy" not in texts


def busy(world: World) -> bool:
    lease = world.broker().status()["lease"]
    return bool(lease["busy"])
