"""Two kernels, one palace: leases, handover, pause and resume, with real brokers and a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mempalace_broker.lease.files import read_leases
from tests.faulty import FaultyEngine
from tests.harness import Broker, World, eventually, require_engine
from tests.proc.far import Far, require_namespaces
from tests.proctools import is_running


class Kernels:
    """A world, and other kernels that see its palace."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._far: list[Far] = []

    def far(self) -> Far:
        self._far.append(Far(self.world))
        return self._far[-1]

    def close(self) -> None:
        for far in self._far:
            far.close()


@pytest.fixture
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """With the marker `engine` a real one; without it brokers find no mempalace, which is enough for leases."""
    require_namespaces()
    real = request.node.get_closest_marker("engine") is not None
    env = {"MEMPALACE_BROKER_IDLE_S": "60"}
    if real:
        require_engine("newest")
    else:
        env["MEMPALACE_BROKER_ENGINE"] = "/nowhere/python"
    with World("newest" if real else None, env=env) as world:
        made = Kernels(world)
        try:
            yield made
        finally:
            made.close()


def call(broker: Broker, tool: str, timeout: float = 30.0, **arguments: Any) -> dict[str, Any]:
    """One tools/call on a connection of its own; the whole answer."""
    with send(broker, tool, **arguments) as sock:
        sock.settimeout(timeout)
        with sock.makefile("rb") as file:
            answer: dict[str, Any] = json.loads(file.readline())
    return answer


def send(broker: Broker, tool: str, **arguments: Any) -> socket.socket:
    """The same without waiting for the answer."""
    endpoint = broker.record["endpoints"][0].removeprefix("unix:")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(endpoint)
    params = {"name": f"mempalace_{tool}", "arguments": arguments}
    sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode() + b"\n")
    return sock


def add(broker: Broker, content: str) -> None:
    answer = call(broker, "add_drawer", wing="w", room="r", content=content)
    assert "error" not in answer, answer


def found(broker: Broker, content: str) -> bool:
    return content in json.dumps(call(broker, "list_drawers", wing="w"))


def leases(world: World) -> dict[int, tuple[str, bool]]:
    """epoch -> (state, busy)"""
    return {c.epoch: (c.state, c.busy) for c in read_leases(str(world.palace / "broker-claims"))[1]}


@pytest.mark.engine
def test_the_host_asks_and_a_container_hands_over(kernels: Kernels) -> None:
    world = kernels.world
    far = kernels.far()
    assert far.start()["state"] == "ready", far.report
    theirs = far.broker()
    far_engine = theirs.engine_pid()
    add(theirs, "written from a container")
    assert theirs.status()["lease"]["kind"] == "foreign"
    with world.watch_owners() as owners:
        done = world.cli("ensure")
    assert done.returncode == 0, done.stderr
    assert owners.most <= 1
    assert "asks for it" in far.exit_reason()
    assert not is_running(far_engine)
    host = world.broker()
    assert host.pid != theirs.pid
    assert host.record["epoch"] == theirs.record["epoch"] + 1
    assert found(host, "written from a container")
    assert not [name for name in os.listdir(world.palace / "broker-claims") if name.startswith("ask-")]


def test_a_live_owner_is_left_alone(kernels: Kernels) -> None:
    empty = kernels.world
    first, second, third = kernels.far(), kernels.far(), kernels.far()
    assert first.start()["state"] == "ready", first.report
    told = second.start()
    assert told["state"] == "failed"
    assert f"pid {first.broker().pid}" in told["reason"]
    assert "alive" in told["reason"]
    assert "stop" in told["hint"]
    assert empty.cli("ensure").returncode == 0  # the host may ask, a container may not
    told = third.start()
    assert "the palace's own machine" in told["reason"]
    assert "alive" in told["reason"]
    assert leases(empty)[max(leases(empty))][0] == "active"


@pytest.mark.engine
def test_a_silent_idle_owner_is_taken_over_and_fences_itself_when_it_wakes(kernels: Kernels) -> None:
    world = kernels.world
    far = kernels.far()
    assert far.start()["state"] == "ready", far.report
    theirs = far.broker()
    far_engine = theirs.engine_pid()
    add(theirs, "before the pause")
    eventually(lambda: leases(world)[1] == ("active", False), what="an idle owner")
    tree = far.stop()
    late = send(theirs, "add_drawer", wing="w", room="r", content="must never arrive")
    with late:
        done = world.cli("ensure")
        assert done.returncode == 0, done.stderr
        host = world.broker()
        add(host, "from the host")
        far.resume(tree)
        assert "no longer ours" in far.exit_reason()
        late.settimeout(5)
        with contextlib.suppress(ConnectionResetError):  # it was never accepted
            assert b'"result"' not in late.recv(65536)
    assert not is_running(far_engine)
    assert leases(world)[1][0] == "released"
    assert found(host, "before the pause")
    assert found(host, "from the host")
    assert not found(host, "must never arrive")


@pytest.mark.engine
def test_a_silent_owner_in_the_middle_of_a_call_is_not_taken_over(kernels: Kernels) -> None:
    world = kernels.world
    faulty = FaultyEngine(world)
    far = kernels.far()
    assert far.start()["state"] == "ready", far.report
    theirs = far.broker()
    theirs.engine_pid()
    with send(theirs, "add_drawer", wing="w", room="r", content="FAULT:hold paused inside") as running:
        eventually(faulty.held.exists, what="a call that runs")
        tree = far.stop()
        refused = world.cli("ensure")
        assert refused.returncode == 69
        assert "in the middle of a call" in refused.stderr
        assert f"pid {theirs.pid}" in refused.stderr
        assert "take-over --yes" in refused.stderr
        far.resume(tree)
        faulty.release()
        running.settimeout(20)
        assert b'"result"' in running.recv(65536)  # nobody came after it: it goes on as the owner
    assert world.cli("ensure").returncode == 0
    assert found(world.broker(), "paused inside")


@pytest.mark.engine
def test_a_person_may_say_that_a_vanished_container_is_gone(kernels: Kernels) -> None:
    world = kernels.world
    faulty = FaultyEngine(world)
    far = kernels.far()
    assert far.start()["state"] == "ready", far.report
    theirs = far.broker()
    theirs.engine_pid()
    alive = world.cli("take-over", "--yes")
    assert alive.returncode == 75
    assert "alive" in alive.stderr
    with send(theirs, "add_drawer", wing="w", room="r", content="FAULT:hold"):
        eventually(faulty.held.exists, what="a call that runs")
        far.kill()
    assert world.cli("take-over", "--yes").returncode == 0
    assert world.cli("ensure").returncode == 0
    add(world.broker(), "after the container")


def test_an_owner_that_can_t_write_its_heartbeat_fences_itself(kernels: Kernels) -> None:
    empty = kernels.world
    far = kernels.far()
    assert far.start()["state"] == "ready", far.report
    assert far.process is not None
    # EFBIG for each write, its log included
    subprocess.run(["prlimit", f"--pid={far.process.pid}", "--fsize=0:0"], check=True)
    far.process.wait(30)
    assert leases(empty)[1][0] == "active", "it could not even say that it leaves"


def test_an_owner_whose_lease_vanishes_fences_itself(kernels: Kernels) -> None:
    far = kernels.far()
    assert far.start()["state"] == "ready", far.report
    far.inside("mount", "-t", "tmpfs", "none", str(kernels.world.palace / "broker-claims"))
    assert "was removed" in far.exit_reason()


def test_a_killed_host_broker_needs_no_settling(kernels: Kernels) -> None:
    empty = kernels.world
    assert empty.cli("ensure").returncode == 0
    first = empty.broker()
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not first.running, what="the end of the broker")
    assert empty.cli("ensure").returncode == 0
    second = empty.broker()
    assert second.record["epoch"] == first.record["epoch"] + 1
    started = [line for line in empty.log().splitlines() if "serving" in line]
    assert len(started) == 2
