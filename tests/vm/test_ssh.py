"""A guest and its host at work on one palace at once: the guest's agents reach the host's broker through ssh."""

from __future__ import annotations

import json

import pytest

from tests.elsewhere import Side
from tests.harness import World
from tests.load import Load
from tests.proctools import cmdline_of, eventually
from tests.vm.conftest import debris

pytestmark = [pytest.mark.vm, pytest.mark.engine, pytest.mark.xdist_group("vm")]  # one guest for all
GUEST_S = 240.0  # patience with a guest without hardware acceleration


@pytest.mark.timeout(900)
def test_a_storm_from_both_sides(world: World, bridged: Side) -> None:
    with world.watch_owners(0.02) as watch:
        with Load(world, 2) as here, Load(bridged, 2, first=2, patience=GUEST_S) as there:
            there.wait_writes(12, GUEST_S)
            here.wait_writes(12)
        eventually(lambda: len(world.brokers()) == 1, what="one broker, those that lost a race gone")
        here.verify(bridged)
        there.verify(world)
    assert watch.most == 1, watch.worst
    (owner,) = watch.seen
    assert "virtiofsd" not in " ".join(cmdline_of(owner)), "the guest opened the palace"
    assert debris(world) == []


@pytest.mark.timeout(900)
def test_the_guest_starts_the_broker_on_the_host(world: World, bridged: Side) -> None:
    shim = bridged.shim()
    shim.initialize(GUEST_S)
    told = shim.call_tool("add_drawer", GUEST_S, wing="w", room="r", content="from the guest")
    assert told["success"] is True
    (broker,) = world.brokers()
    status = json.loads(world.cli("status", "--json").stdout)
    assert status["broker"]["pid"] == broker
    shim.finish()
