"""What a bare mempalace-mcp answers to the script, once for all tests of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.clients import script
from tests.clients.script import Answer, Caller
from tests.harness import RpcProcess, World

Baseline = Callable[[str], list[tuple[str, Answer]]]


def furnish(world: World) -> None:
    """A folder to mine, where agents work."""
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


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    """The answers of a bare mempalace-mcp of an engine, to the script without every single property."""

    @cache
    def made(engine: str) -> list[tuple[str, Answer]]:
        with World(engine) as world:
            furnish(world)
            server = world.bare()
            server.initialize()
            return play(world, rpc_caller(server), every_property=False)

    return made


def differences(found: list[tuple[str, Answer]], wanted: list[tuple[str, Answer]]) -> list[str]:
    """Where two plays of one script differ, in words."""
    assert [label for label, _ in found] == [label for label, _ in wanted]
    return [
        f"{label}\n  here: {one}\n  bare: {other}"
        for (label, one), (_, other) in zip(found, wanted, strict=True)
        if one != other
    ]
