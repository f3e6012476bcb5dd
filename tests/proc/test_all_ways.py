"""All ways into the palace at once while broker and engine are killed: promises are kept, and one process opens it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time

import pytest

from tests import harness
from tests.harness import World, eventually
from tests.load import Load
from tests.ways import BareAgents, HttpAgents, Repeated, Savers, StockAgents, hub_record

pytestmark = pytest.mark.engine
KILLS = ("broker", "engine")


class Killer:
    """kill -9 of broker and engine in turn."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kills: list[str] = []

    def strike(self, n: int) -> None:
        what = KILLS[n % len(KILLS)]
        with contextlib.suppress(ProcessLookupError, OSError, AssertionError):
            broker = self.world.broker(5.0)
            pid = broker.pid if what == "broker" else broker.engine_pid(5.0)
            os.kill(pid, signal.SIGKILL)
            self.kills.append(what)


def storm(seconds: float, *, kill_every_s: float, exclusive_every_s: float) -> None:
    harness.require_engine("newest")
    env = {
        "MEMPALACE_BROKER_PARK_S": "1",
        "MEMPALACE_MCP_TIMEOUT_MS": "90000",
        "MEMPALACE_MCP_INIT_TIMEOUT_MS": "90000",
    }
    with World("newest", env=env) as world:
        config = world.state_root / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "write_routing": {"hooks": "prefer"}}))
        first = world.shim()
        first.initialize()
        first.call_tool("add_drawer", wing="w", room="r", content="the first heron")
        eventually(lambda: hub_record(world), what="the record of a hub")
        savers, killer = Savers(world), Killer(world)
        shims = Load(world, 2, patience=150.0)
        clients = HttpAgents(world)
        web = Load(clients, 2, first=100, patience=150.0)
        stock = Load(StockAgents(world), 2, first=200, patience=150.0)
        done: list[int] = []

        def exclusive(_: int) -> None:
            done.append(world.cli("exclusive", "--wait", "60", "--", "sh", "-c", "sleep 0.5", timeout=100).returncode)

        with contextlib.ExitStack() as stack:
            sampler = stack.enter_context(world.watch_owners())
            for load in (shims, web, stock):
                stack.enter_context(load)
            stack.enter_context(Repeated("mine", savers.mine, 1.0))
            stack.enter_context(Repeated("hooks", savers.hook, 2.0))
            stack.enter_context(Repeated("exclusive", exclusive, exclusive_every_s))
            stack.enter_context(Repeated("kills", killer.strike, kill_every_s))
            end = time.monotonic() + seconds
            for load in itertools.cycle((shims, web, stock)):
                load.wait_writes(1, 150.0)
                if time.monotonic() > end:
                    break
        clients.release()
        told = {
            "writes": [load.writes for load in (shims, web, stock)],
            "unknown": [sum(len(one.unknown) for one in load.sessions) for load in (shims, web, stock)],
            "mined": len(savers.mined),
            "hooks": len(savers.saved),
            "not saved": savers.not_saved,
            "exclusive": done,
            "kills": killer.kills,
            "samples": (sampler.samples, sampler.shared, sampler.most),
        }
        print(told)
        assert sampler.most == 1, (sampler.worst, told)
        assert savers.mined, told
        assert savers.saved, told
        assert set(done) == {0}, told
        assert len(killer.kills) >= 2, told
        for process in world.processes:
            if process.running:
                process.finish(60)
        assert world.cli("stop", timeout=100).returncode == 0
        for load in (shims, web, stock):
            load.verify(BareAgents(world))
        fresh = world.bare()
        fresh.initialize()
        savers.verify(fresh)
        assert fresh.finish(60) == 0
        assert not list(world.palace.glob("*.corrupt-*")) + list(world.palace.glob("*.drift-*"))


@pytest.mark.timeout(300)
def test_a_short_storm_by_all_ways() -> None:
    storm(30.0, kill_every_s=6.0, exclusive_every_s=8.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_storm_by_all_ways() -> None:
    storm(240.0, kill_every_s=10.0, exclusive_every_s=15.0)
