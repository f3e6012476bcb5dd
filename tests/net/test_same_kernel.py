"""Containers on the kernel of the palace: it is bind-mounted into them, under another path, another HOME and other
process ids. Locks and sockets work through the mount, so a container is one more client, or the owner."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker import errors
from tests import netbox
from tests.elsewhere import Side
from tests.harness import World, eventually
from tests.load import Load
from tests.netbox import Box
from tests.proctools import OwnerSampler
from tests.rpcproc import RpcProcess

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]
INSIDE = f"{netbox.HOME}/.mempalace"
PATIENCE_S = 60.0

_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("got")
    except BlockingIOError:
        print("busy")
"""
_TALK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b"ping")
    print(sock.recv(10).decode())
"""


@pytest.fixture
def world(world: World) -> World:
    """A world whose palace is found by default, as in a container: no configuration names a path."""
    netbox.require_boxes()
    (world.state_root / "config.json").write_text("{}")
    return world


@contextlib.contextmanager
def container(world: World, name: str = "one", inside: str = INSIDE, home: str = netbox.HOME) -> Iterator[Side]:
    """A container with the state root of the world."""
    with Box(name, {world.state_root: inside}, home=home) as box:
        yield Side(world, box)


@contextlib.contextmanager
def one_owner(world: World) -> Iterator[OwnerSampler]:
    """At most one process has the palace open, at every sample."""
    with world.watch_owners(0.02) as watch:
        yield watch
    assert watch.most == 1, watch.worst
    assert watch.samples >= 20


def started(side: World | Side) -> RpcProcess:
    """A shim that has initialized and called a tool, so that there is a broker with an engine."""
    shim = side.shim()
    shim.initialize(PATIENCE_S)
    shim.call_tool("kg_stats", PATIENCE_S)
    return shim


def pid_namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def test_the_premise_locks_and_sockets_cross(world: World) -> None:
    lock = world.state_root / "a.lock"
    lock.touch()
    with container(world) as side, socket.socket(socket.AF_UNIX) as listener, lock.open("r+") as file:
        assert pid_namespace(os.getpid()) != side.must(["readlink", "/proc/self/ns/pid"]).strip()
        assert side.python(_LOCK, f"{INSIDE}/a.lock") == "got\n"
        fcntl.flock(file, fcntl.LOCK_EX)
        assert side.python(_LOCK, f"{INSIDE}/a.lock") == "busy\n"
        listener.bind(str(world.state_root / "a.sock"))
        listener.listen()
        talk = side.spawn(["python3", "-c", _TALK, f"{INSIDE}/a.sock"])
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(10).replace(b"i", b"o"))
        assert talk.wait_lines(1) == ["pong"]


def test_the_host_first(world: World) -> None:
    with container(world) as side, one_owner(world) as watch:
        first = started(world)
        with Load(world, 2) as here, Load(side, 2, first=2) as there:
            here.wait_writes(12)
            there.wait_writes(12)
        (broker,) = world.brokers()
        assert pid_namespace(broker) == pid_namespace(os.getpid())
        here.verify(side)
        there.verify(world)
        assert len(watch.seen) == 1
        first.finish()


def test_the_container_first_and_alone(world: World) -> None:
    with (
        container(world) as side,
        container(world, "two", "/data/.mempalace", "/data") as other,
        one_owner(world) as watch,
    ):
        first = started(side)
        (broker,) = world.brokers()
        assert pid_namespace(broker) == pid_namespace(side.place.pid)  # type: ignore[attr-defined]
        assert (world.record() or {})["guest"] is True
        with Load(other, 2) as here, Load(side, 2, first=2) as there:
            here.wait_writes(12)
            there.wait_writes(12)
        assert world.brokers() == [broker]
        here.verify(side)
        there.verify(other)
        assert len(watch.seen) == 1
        first.finish()


def test_the_host_takes_over_from_a_container_and_nothing_is_lost(world: World) -> None:
    """A host's session is not served by a guest: the container's broker leaves, its sessions go on with the host's."""
    with container(world) as side, one_owner(world) as watch:
        started(side)
        (before,) = world.brokers()
        with Load(side, 2, first=2) as there:
            there.wait_writes(6)
            shims = [world.shim() for _ in range(3)]
            asked = [shim.start_request("initialize", {"protocolVersion": "2025-06-18"}) for shim in shims]
            for shim, id_ in zip(shims, asked, strict=True):
                assert "result" in shim.wait_response(id_, PATIENCE_S)
            with Load(world, 2) as here:
                here.wait_writes(6)
                there.wait_writes(6)
        eventually(lambda: len(world.brokers()) == 1, what="one broker")
        (broker,) = world.brokers()
        assert broker != before
        assert pid_namespace(broker) == pid_namespace(os.getpid())
        here.verify(side)
        there.verify(world)
        assert len(watch.seen) == 2, "one engine in the container, one on the host"
        assert (world.record() or {})["guest"] is (pid_namespace(os.getpid()) != "pid:[4026531836]")


def test_the_container_dies_while_it_owns_the_broker_and_writes_are_under_way(world: World) -> None:
    with contextlib.ExitStack() as stack:
        side = stack.enter_context(container(world))
        other = stack.enter_context(container(world, "two", "/data/.mempalace", "/data"))
        watch = stack.enter_context(one_owner(world))
        started(side)
        (broker,) = world.brokers()
        third = stack.enter_context(container(world, "three", "/srv/.mempalace", "/srv"))
        with Load(third, 2) as here, Load(side, 2, first=2) as there, Load(other, 1, first=4) as elsewhere:
            for load in (here, there, elsewhere):
                load.wait_writes(6)
            for session in there.sessions:
                there.forgive(session)
            side.place.kill()  # type: ignore[attr-defined]
            for load in (here, elsewhere):
                load.wait_writes(6)
        for load in (here, there, elsewhere):
            load.verify(third)
        assert world.brokers() != [broker]
        assert len(watch.seen) == 2, "one engine in the container, one after it"


def test_many_at_once_on_a_cold_palace_make_one_broker(world: World) -> None:
    with container(world) as one, container(world, "two") as two, one_owner(world):
        shims = [side.shim() for _ in range(4) for side in (world, one, two)]
        asked = [shim.start_request("initialize", {"protocolVersion": "2025-06-18"}) for shim in shims]
        for shim, id_ in zip(shims, asked, strict=True):
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        calls = [shim.start_call("kg_stats") for shim in shims]
        for shim, id_ in zip(shims, calls, strict=True):
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        eventually(lambda: len(world.brokers()) == 1, what="one broker, those that lost the race gone")
        status = json.loads(world.cli("status", "--json").stdout)
        assert status["broker"]["epoch"] <= 2, "the host's, perhaps after that of a container that came first"
        assert pid_namespace(world.broker().pid) == pid_namespace(os.getpid())


def test_a_config_written_on_the_host_leads_to_the_mounted_palace(world: World) -> None:
    """`mempalace init` writes the absolute path of the palace: a path that does not exist in the container."""
    (world.state_root / "config.json").write_text(json.dumps({"palace_path": str(world.palace)}))
    with container(world) as side, one_owner(world):
        first = started(world)
        shim = started(side)
        told = shim.call_tool("add_drawer", PATIENCE_S, wing="w", room="r", content="from the container")
        assert "from the container" in str(first.call_tool("get_drawer", PATIENCE_S, drawer_id=told["drawer_id"]))
        eventually(lambda: len(world.brokers()) == 1, what="one broker, those that lost a race gone")
        shim.finish()


def test_another_palace_under_the_same_path_is_another_palace(world: World) -> None:
    """The broker's socket by name, and a palace of the container's own where the host has its palace."""
    first = started(world)
    with container(world, inside="/data/mempalace") as side:
        side.must(["mkdir", "-p", str(world.palace)])
        side.env["MEMPALACE_PALACE_PATH"] = str(world.palace)
        side.env["MEMPALACE_BROKER"] = "unix:/data/mempalace/broker.sock"
        shim = side.shim()
        shim.initialize(PATIENCE_S)
        answer = shim.request("tools/call", {"name": "mempalace_kg_stats", "arguments": {}}, PATIENCE_S)
        assert answer["error"]["code"] == errors.OTHER_PALACE, answer
        shim.finish()
    first.finish()


@pytest.mark.parametrize("whole", [True, False], ids=["home", "state root"])
def test_doctor_warns_in_a_container_that_has_the_whole_home(world: World, whole: bool) -> None:
    (world.home / ".ssh").mkdir()
    binds = {world.home: netbox.HOME} if whole else {world.state_root: f"{netbox.HOME}/.mempalace"}
    with Box("one", binds) as box:
        assert box.run(["touch", "/run/.containerenv"]).returncode == 0  # as Podman marks its containers
        told = json.loads(Side(world, box, {"MEMPALACE_BROKER_NO_SPAWN": "1"}).cli("doctor", "--json").stdout)
    rows = [row for row in told["findings"] if row["what"] == "container"]
    assert bool(rows) is whole
    for row in rows:
        assert row["severity"] == "warn"
        assert f"{netbox.HOME}/.ssh" in row["detail"]
        assert "mount the state root alone" in row["hint"]


def test_the_broker_of_a_container_is_named_and_stopped_from_the_host(world: World) -> None:
    with container(world) as side:
        started(side).finish()
        assert world.cli("status").returncode == 0
        stopped = world.cli("stop")
        assert stopped.returncode == 0, stopped.stderr
        eventually(lambda: not world.brokers(), what="the end of the container's broker")
        assert not Path(world.state_root / "broker.json").exists()
