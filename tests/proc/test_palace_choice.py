"""The palace that is meant: where bare mempalace of the same version has it, on a machine where nothing names one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness import World
from tests.harness import engine_python as python_of
from tests.rpcproc import RpcProcess

OTHER = {"3.4.0": "newest", "newest": "3.4.0"}


@contextmanager
def session(world: World, engine: str) -> Iterator[RpcProcess]:
    """A session and its broker, both gone afterwards."""
    env = {"MEMPALACE_BROKER_ENGINE": str(python_of(engine))}
    with world.shim(env=env) as shim:
        shim.initialize()
        yield shim
    assert world.cli("stop", env=env).returncode == 0


def finds(agent: RpcProcess, word: str) -> bool:
    return any(word in found["text"] for found in agent.call_tool("search", query=word)["results"])


def test_a_palace_that_nobody_named_is_found_by_all(engine: str) -> None:
    """By a session, by bare, after `init`, and after a change of version there and back."""
    with World(engine, by="default") as world:
        with session(world, engine) as shim:
            assert shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits")["success"]
        with world.bare() as bare:
            bare.initialize()
            assert finds(bare, "heron")
            assert bare.call_tool("add_drawer", wing="w", room="r", content="a stork came by")["success"]
        assert world.mempalace("init", "--yes", "--no-llm", str(world.cwd)).returncode == 0
        for version in (engine, OTHER[engine], engine):
            with session(world, version) as shim:
                assert finds(shim, "heron"), version
                assert finds(shim, "stork"), version
