"""What a bare mempalace-mcp answers to the script, once for all tests of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.clients import script
from tests.clients.script import Answer, Caller
from tests.harness import RpcProcess, World
from tests.hooked import make_steady


def furnish(world: World) -> None:
    """A folder to mine, where agents work, and engines that can be compared."""
    make_steady(world)
    docs = world.cwd / "docs"
    docs.mkdir()
    # one file only: the order of several in a listing is left to chance
    text = "# Boat\n\nHow to build the boat: take planks, tar and patience.\n" * 5
    (docs / "boat.md").write_text(text, encoding="utf-8")


def rpc_caller(process: RpcProcess) -> Caller:
    """Calls over the bare protocol, without any SDK."""

    def call(tool: str, arguments: script.Arguments) -> Answer:
        params = {"name": tool, "arguments": arguments}
        return script.from_rpc(process.request("tools/call", params, 100))

    return call


def play(world: World, call: Caller, *, every_property: bool) -> list[tuple[str, Answer]]:
    """The script, normalised."""
    version = {"newest": "3.11.0"}.get(str(world.engine), str(world.engine))
    steps = script.steps(version, every_property=every_property)
    return [(label, script.normalised(answer, world.root)) for label, answer in script.play(call, steps)]


@dataclass(frozen=True)
class Bare:
    """What a bare mempalace-mcp says.

    Attributes:
        initialize: result of `initialize`, asked for the protocol that the harness asks for.
        tools: as listed. answers: to the script without every single property.
    """

    initialize: dict[str, Any]
    tools: list[dict[str, Any]]
    answers: list[tuple[str, Answer]]


Baseline = Callable[[str], Bare]


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    """Asks a bare mempalace-mcp of that engine, once in a run."""

    @cache
    def made(engine: str) -> Bare:
        with World(engine) as world:
            furnish(world)
            server = world.bare()
            initialize, tools = server.initialize(), server.tools()
            return Bare(initialize, tools, play(world, rpc_caller(server), every_property=False))

    return made


def differences(found: list[tuple[str, Answer]], wanted: list[tuple[str, Answer]]) -> list[str]:
    """Where two plays of one script differ, in words."""
    assert [label for label, _ in found] == [label for label, _ in wanted]
    return [
        f"{label}\n  here: {one}\n  bare: {other}"
        for (label, one), (_, other) in zip(found, wanted, strict=True)
        if one != other
    ]
