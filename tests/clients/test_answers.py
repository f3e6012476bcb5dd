"""mp-shim answers what a bare mempalace-mcp of the same version answers: every tool, good and bad, from a fresh
palace on. Needs no client but ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mempalace_broker.broker.machine.tool_schemas import normalise_tools
from tests.clients.conftest import Baseline, differences, furnish, play, rpc_caller
from tests.clients.script import Answer
from tests.harness import World


def played(engine: str, kind: str) -> list[tuple[str, Answer]]:
    with World(engine) as world:
        furnish(world)
        server = world.shim() if kind == "shim" else world.bare()
        server.initialize()
        return play(world, rpc_caller(server), every_property=True)


newest = pytest.param("newest", marks=pytest.mark.engine)
oldest = pytest.param("3.4.0", marks=[pytest.mark.engine, pytest.mark.slow])  # embeds at its own pace


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", [newest, oldest], indirect=True)
def test_every_tool_answers_as_bare_mempalace(engine: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        bare, shim = pool.map(lambda kind: played(engine, kind), ["bare", "shim"])
    assert differences(shim, bare) == []
    assert len(shim) > 250


def test_every_tool_answers_as_bare_mempalace_in_short(world: World, baseline: Baseline) -> None:
    furnish(world)
    shim = world.shim()
    shim.initialize()
    found = play(world, rpc_caller(shim), every_property=False)
    assert differences(found, baseline(str(world.engine)).answers) == []
    assert len(found) > 120


def test_initialize_and_tools_are_those_of_bare_mempalace(world: World, baseline: Baseline) -> None:
    shim, bare = world.shim(), baseline(str(world.engine))
    assert shim.initialize() == bare.initialize
    assert shim.tools() == normalise_tools(bare.tools)
