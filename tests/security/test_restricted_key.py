"""A restricted key gets the memory of one palace, whatever it asks for and whatever it writes into the shared folder.

sshd is left out: its forced command gets the client's own in a variable, and the rest is ours.
"""

from __future__ import annotations

import json
import os

import pytest

from mempalace_broker import errors
from mempalace_broker.cli.ssh_command import VARIABLE
from tests.harness import World
from tests.rpcproc import RpcProcess

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]


def over_key(world: World, *pins: str, command: str = "dial-stdio") -> RpcProcess:
    """What sshd starts for a client that may run `ssh-command` alone."""
    program = world.program("mempalace-broker")
    return world.spawn([program, "ssh-command", *pins], env={VARIABLE: f"mempalace-broker {command}"})


def pin(world: World) -> list[str]:
    return ["--state-root", str(world.state_root)]


def test_it_gets_the_memory_and_stops_nothing(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    key = over_key(world, *pin(world))
    assert key.call_tool("kg_stats")
    for method in ("broker/stop", "broker/restart"):
        for mode in ("now", "drain"):
            refused = key.request(method, {"mode": mode})
            assert refused["error"]["code"] == errors.NOT_ALLOWED
    status = key.request("broker/status", {})["result"]
    assert status["brief"] is True
    assert not {"settings", "sessions", "endpoints"} & set(status)
    assert world.broker().status()["sessions"][-1]["origin"] == "guest"
    assert world.broker().running


def test_it_names_no_other_palace(world: World) -> None:
    other = world.root / "private" / "palace"
    other.mkdir(parents=True, mode=0o700)
    for option in (f"--palace {other}", f"--state-root {other.parent}", f"--palace={other}", "--backend x"):
        for pins in ([], pin(world), ["--palace", str(world.palace)]):
            done = world.cli("ssh-command", *pins, env={VARIABLE: f"mempalace-broker ensure {option}"})
            assert done.returncode == errors.EXIT_USAGE, option
            assert "is not for this key" in done.stderr
    assert not os.listdir(other)


def test_the_shared_folder_does_not_lead_it_to_another_broker(world: World) -> None:
    """The record and the note in the lock are the guest's to write: both name the user's other broker."""
    private = world.root / "private"
    (private / "palace").mkdir(parents=True, mode=0o700)
    env = {"MEMPALACE_PALACE_PATH": str(private / "palace")}
    assert world.cli("ensure", env=env).returncode == 0
    try:
        record = json.loads((private / "broker.json").read_bytes())
        world.state_root.mkdir(exist_ok=True)
        for palace in (record["palace"], {**record["palace"], "path": str(world.palace)}):
            (world.state_root / "broker.json").write_text(json.dumps({**record, "palace": palace}))
            key = over_key(world, *pin(world))
            key.initialize()
            assert key.request("broker/status")["result"]["palace"]["path"] == str(world.palace)
            assert key.finish() == 0
            done = world.cli("ssh-command", *pin(world), env={VARIABLE: "mempalace-broker ensure"})
            assert json.loads(done.stdout)["palace"]["path"] == str(world.palace)
    finally:
        (world.state_root / "broker.json").unlink()
        assert world.cli("stop", env=env).returncode == 0
