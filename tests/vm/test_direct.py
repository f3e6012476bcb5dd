"""A guest without a way to its host opens the palace itself, under a lease; the host takes it over, or learns who has
it.

The engine in the guest is the real one without hardware acceleration: half a minute to start. Its embedding model is
replaced by a cheap one, or it would be minutes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.lease.files import read_leases
from tests.elsewhere import Side
from tests.harness import World, eventually
from tests.load import Load, facts
from tests.proctools import cmdline_of
from tests.rpcproc import RpcError, RpcProcess
from tests.vm.conftest import SHARED, debris, palace_in
from tests.vm.machine import Machine, Share
from tests.vm.quick import make_quick_engine
from tests.vm.writers import Writers

pytestmark = [pytest.mark.vm, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]
GUEST_S = 400.0
HOST_S = 90.0
SILENCE_S = 12.0  # more than the time after which a silent owner may be taken for gone


def be_patient(world: World, side: Side) -> None:
    """Limits that hold for an engine twenty times slower than a user's; with a cheap model, host and guest alike."""
    python = make_quick_engine(world)
    world.env["MEMPALACE_BROKER_ENGINE"] = f"{world.root}/{python}"
    side.env["MEMPALACE_BROKER_ENGINE"] = f"{SHARED}/{world.root.name}/{python}"
    for name in ("MEMPALACE_MCP_TIMEOUT_MS", "MEMPALACE_MCP_INIT_TIMEOUT_MS"):
        side.env[name] = str(int(GUEST_S * 1000))
    side.env["MEMPALACE_BROKER_IDLE_S"] = "600"


@pytest.fixture
def guest(world: World, guest: Side) -> Side:
    """The guest's side, with patience."""
    be_patient(world, guest)
    return guest


def in_guest(pid: int) -> bool:
    """Whether what this process does is done for the guest."""
    return "virtiofsd" in " ".join(cmdline_of(pid)[:1])


def started(side: World | Side, patience: float) -> RpcProcess:
    shim = side.shim()
    shim.initialize(patience)
    shim.call_tool("kg_stats", patience)
    return shim


def add_fact(shim: RpcProcess, name: str, patience: float) -> None:
    told = shim.call_tool("kg_add", patience, subject=name, predicate="is", object="stored")
    assert told["success"] is True, told


def add_drawer(shim: RpcProcess, text: str, patience: float) -> str:
    told = shim.call_tool("add_drawer", patience, wing="w", room="r", content=text)
    assert told["success"] is True, told
    return str(told["drawer_id"])


def attempt(shim: RpcProcess, name: str, patience: float) -> str:
    """Try to add a fact; what the refusal says, or nothing where it was stored."""
    try:
        add_fact(shim, name, patience)
    except RpcError as error:
        return error.message
    return ""


def has_fact(shim: RpcProcess, name: str, patience: float) -> bool:
    told = shim.call_tool("kg_query", patience, entity=name)
    return len(facts(told)) == 1


def sides(writers: Writers) -> list[str]:
    """Who wrote, in turns: "guest", "host"."""
    turns: list[str] = []
    for pid in writers.turns():
        side = "guest" if in_guest(pid) else "host"
        if turns[-1:] != [side]:
            turns.append(side)
    return turns


def is_idle(world: World) -> bool:
    """Whether the palace's owner says that it is not in the middle of a call."""
    _, leases = read_leases(str(world.palace / "broker-claims"))
    return bool(leases) and not max(leases).busy


def status(side: World | Side) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(side.cli("status", "--json", timeout=HOST_S).stdout)
    return parsed


def test_the_guest_alone(world: World, guest: Side) -> None:
    with world.watch_owners(0.05) as watch:
        with Load(guest, 2, patience=GUEST_S) as load:
            load.wait_writes(8, GUEST_S)
        load.verify()
        told = status(guest)
        assert told["running"] is True, told
    assert watch.most == 1, watch.worst
    assert all(in_guest(pid) for pid in watch.seen)
    assert world.brokers() == []
    assert debris(world) == []


def test_the_host_takes_over_from_the_guest(world: World, guest: Side) -> None:
    with world.watch_owners(0.05) as watch, Writers(world.state_root) as writers:
        there = started(guest, GUEST_S)
        add_fact(there, "first", GUEST_S)
        drawer = add_drawer(there, "written by the guest", GUEST_S)
        here = started(world, HOST_S)
        assert has_fact(here, "first", HOST_S)
        assert "written by the guest" in str(here.call_tool("get_drawer", HOST_S, drawer_id=drawer))
        add_fact(here, "second", HOST_S)
        refusal = attempt(there, "third", GUEST_S)
        assert refusal, "the host has it"
        add_fact(here, "fourth", HOST_S)
    assert sides(writers) == ["guest", "host"]
    assert watch.most == 1, watch.worst
    assert debris(world) == []


def test_a_paused_guest_loses_the_palace_and_does_not_write_when_it_wakes(
    world: World, guest: Side, machine: Machine
) -> None:
    with Writers(world.state_root) as writers:
        there = started(guest, GUEST_S)
        add_fact(there, "first", GUEST_S)
        eventually(lambda: is_idle(world), GUEST_S, "a guest that says that it is idle")
        machine.pause()
        here = started(world, HOST_S)
        assert has_fact(here, "first", HOST_S)
        add_fact(here, "second", HOST_S)
        machine.resume()
        refusal = attempt(there, "third", GUEST_S)
        assert refusal, "the host has it"
        eventually(lambda: not any(map(in_guest, world.owners())), HOST_S, "the guest lets go of the palace's files")
        add_fact(here, "fourth", HOST_S)
        assert not has_fact(here, "third", HOST_S)
        lost = [name for name in ("first", "second", "fourth") if not has_fact(here, name, HOST_S)]
        assert lost == []
    assert sides(writers) == ["guest", "host"]
    assert debris(world) == []


def test_a_guest_paused_in_the_middle_of_a_write_is_not_taken_over(world: World, guest: Side, machine: Machine) -> None:
    with world.watch_owners(0.05) as watch, Writers(world.state_root) as writers:
        there = started(guest, GUEST_S)
        asked = there.start_call("add_drawer", wing="w", room="r", content="a long text " * 60)
        eventually(lambda: not is_idle(world), GUEST_S, "a call under way")
        machine.pause()
        paused = time.monotonic()
        here = world.shim()
        here.initialize(HOST_S)
        refusal = attempt(here, "second", HOST_S)
        assert time.monotonic() - paused > SILENCE_S / 3, "silence takes its time"
        assert refusal, "the guest may be in the middle of a write"
        machine.resume()
        answer = there.wait_response(asked, GUEST_S)
        assert "result" in answer, answer
        assert sides(writers) == ["guest"]
        eventually(lambda: not attempt(here, "third", HOST_S), HOST_S, "a handover")
        assert has_fact(here, "third", HOST_S)
    assert sides(writers) == ["guest", "host"]
    assert watch.most == 1, watch.worst
    assert debris(world) == []


def test_both_at_once_on_a_cold_palace(world: World, guest: Side) -> None:
    with world.watch_owners(0.05) as watch, Writers(world.state_root) as writers:
        there, here = guest.shim(), world.shim()
        for shim in (there, here):
            shim.initialize(GUEST_S)
        stored: list[str] = []
        for number in range(10):
            for shim, name in ((there, f"there{number}"), (here, f"here{number}")):
                if not attempt(shim, name, GUEST_S):
                    stored.append(name)
        assert stored
        winner = here if any(name.startswith("here") for name in stored) else there
        lost = [name for name in stored if not has_fact(winner, name, GUEST_S)]
        assert lost == []
    assert sides(writers) in (["host"], ["guest"], ["guest", "host"])
    assert watch.most == 1, watch.worst


def test_the_host_takes_over_in_the_middle_of_the_guests_work(world: World, guest: Side) -> None:
    with world.watch_owners(0.05) as watch, Writers(world.state_root) as writers:
        with Load(guest, 2, first=2, patience=GUEST_S) as there:
            for session in there.sessions:
                there.forgive(session)  # the palace is taken from under them
            there.wait_writes(8, GUEST_S)
            with Load(world, 2, patience=HOST_S) as here:
                here.wait_writes(12, HOST_S)
        here.verify()
        there.verify(world)
    assert sides(writers) == ["guest", "host"]
    assert watch.most == 1, watch.worst
    assert debris(world) == []


def test_a_guest_that_is_gone_in_the_middle_of_a_write_is_declared_gone_by_a_person(world: World, shared: Path) -> None:
    with Machine([Share(shared, SHARED)], name="mortal") as mortal, palace_in(mortal, world, shared) as side:
        be_patient(world, side)
        there = started(side, GUEST_S)
        add_fact(there, "first", GUEST_S)
        eventually(lambda: is_idle(world), GUEST_S, "a guest that says that it is idle")
        there.start_call("add_drawer", wing="w", room="r", content="a long text " * 60)
        eventually(lambda: not is_idle(world), GUEST_S, "a call under way")
        mortal.stop()
    here = world.shim()
    here.initialize(HOST_S)
    refusal = attempt(here, "second", HOST_S)
    assert "take-over" in refusal, refusal
    declared = world.cli("take-over", "--yes", timeout=HOST_S)
    assert declared.returncode == 0, declared.stderr
    add_fact(here, "third", HOST_S)
    assert has_fact(here, "first", HOST_S)
    assert debris(world) == []
