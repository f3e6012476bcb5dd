"""`--tcp docker`, and a container that finds the host as host.docker.internal: two network namespaces and a bridge.

One box is the machine: it has docker0 and the broker. The other is a container on that bridge, started as with
--add-host=host.docker.internal:host-gateway, with the state root mounted, another HOME and no socket in common.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import harness
from tests.harness import World
from tests.netbox import HOME, REPO, Box, require_boxes

pytestmark = pytest.mark.engine

GATEWAY, CONTAINER = "172.17.0.1", "172.17.0.2"
MOUNT = f"{HOME}/.mempalace"

# What a shim does where the palace is another kernel's: read the record through the mount, try its addresses.
CLIENT = """
import json, os, socket, sys
sys.path[:0] = [sys.argv[1] + "/src", sys.argv[1]]
from mempalace_broker.route.endpoint import parse
from mempalace_broker.route.tcp_addresses import candidates
from mempalace_broker.route.tcp_token import find_token
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system.paths import Context
from mempalace_broker.system.paths import StateFiles
from tests.tcptools import connect
files = StateFiles(sys.argv[2], sys.argv[2] + "/palace")
context = Context(PalaceIdentity(files.palace, "", "flag"), os.environ, files=files)
named = next(e for e in json.load(open(files.record))["endpoints"] if e.startswith("tcp://"))
found = {}
for endpoint in candidates(parse(named, "")):
    with connect(str(endpoint), find_token(context), 10) as sock:
        sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n')
        found[str(endpoint)] = json.loads(sock.makefile().readline())
print(json.dumps(found))
"""


@pytest.fixture
def world() -> Iterator[World]:
    harness.require_engine("newest")
    require_boxes()
    with World("newest") as made:
        yield made


@pytest.fixture
def machine(world: World) -> Iterator[Box]:
    with Box("machine", {world.root: str(world.root)}, home=str(world.home)) as box:
        yield box


@pytest.fixture
def container(world: World, machine: Box) -> Iterator[Box]:
    with Box("ctr", {world.state_root: MOUNT}) as box:
        yield box


def sh(box: Box, script: str) -> None:
    done = box.run(["sh", "-ec", script])
    assert done.returncode == 0, done.stderr


def bridge(machine: Box) -> None:
    """What dockerd makes when it starts."""
    sh(machine, f"ip link add docker0 type bridge; ip addr add {GATEWAY}/16 dev docker0; ip link set docker0 up")


def plug_in(machine: Box, container: Box) -> None:
    """What `docker run --add-host=host.docker.internal:host-gateway` makes."""
    pair = f"ip link add veth0 netns {machine.pid} type veth peer name eth0 netns {container.pid}"
    subprocess.run(shlex.split(pair), check=True, capture_output=True)
    sh(machine, "ip link set veth0 master docker0; ip link set veth0 up")
    sh(container, f"ip addr add {CONTAINER}/16 dev eth0; ip link set eth0 up")
    sh(container, f"echo '{GATEWAY} host.docker.internal' >> /etc/hosts")


def cli(world: World, machine: Box, *args: str) -> Any:
    """`mempalace-broker ...` on the machine; its JSON."""
    done = machine.run([str(world.root / "bin" / "mempalace-broker"), *args], env=world.env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_container_reaches_the_broker_of_its_host(world: World, machine: Box, container: Box) -> None:
    world.cli("--version")  # makes the commands
    began = cli(world, machine, "ensure", "--tcp", "docker")
    assert began["tcp"] is None, "the container engine has not started yet"
    assert any("docker0" in entry["what"] for entry in cli(world, machine, "status", "--json")["degraded"])
    cli(world, machine, "stop", "--json")  # it would notice within half a minute; a new one does at once

    bridge(machine)
    plug_in(machine, container)
    endpoint = cli(world, machine, "ensure", "--tcp", "docker")["tcp"]
    port = endpoint.rpartition(":")[2]
    assert endpoint == f"tcp://{GATEWAY}:{port}"

    found = container.run([sys.executable, "-c", CLIENT, str(REPO), MOUNT])
    assert found.returncode == 0, found.stderr
    pong = {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert json.loads(found.stdout) == {endpoint: pong, f"tcp://host.docker.internal:{port}": pong}

    env = {
        "MEMPALACE_BROKER": f"tcp://host.docker.internal:{port}",
        "MEMPALACE_BROKER_TOKEN_FILE": f"{MOUNT}/broker-token",
        "MEMPALACE_PALACE_PATH": f"{MOUNT}/palace",
    }
    shim = world.spawn(container.argv([sys.executable, "-m", "mempalace_broker.shim"], env))
    shim.initialize()
    assert shim.call_tool("kg_add", subject="container", predicate="reaches", object="host")["success"]
    ways = [session["via"] for session in cli(world, machine, "status", "--json")["sessions"]]
    assert f"tcp {CONTAINER}" in ways
    assert shim.call_tool("kg_stats")["triples"] == 1

    other = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    assert "ConnectionRefusedError" in machine.run([sys.executable, "-c", other]).stderr, "on the bridge only"
    told = cli(world, machine, "stop", "--json")
    assert told["was_running"]
