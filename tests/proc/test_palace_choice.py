"""The palace that is meant: where bare mempalace of the same version has it, on a machine where nothing names one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness import World, eventually
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


TUNNEL: dict[str, Any] = {"source_wing": "w", "source_room": "r", "target_wing": "v", "target_room": "s"}


def tunnels(agent: RpcProcess) -> int:
    listed = agent.call_tool("list_tunnels")
    return len(listed if isinstance(listed, list) else listed["tunnels"])


def test_a_palace_that_is_a_link_keeps_what_lies_beside_its_name(engine: str) -> None:
    """mempalace keeps tunnels beside the name by which it was given the palace."""
    with World(engine) as world:
        for disk in ("one", "two"):
            (world.root / disk / "memory").mkdir(parents=True, mode=0o700)
        world.palace.symlink_to(world.root / "one" / "memory")
        with world.bare() as bare:
            bare.initialize()
            assert bare.call_tool("add_drawer", wing="w", room="r", content="the heron waits")["success"]
            assert bare.call_tool("add_drawer", wing="v", room="s", content="a stork came by")["success"]
            bare.call_tool("create_tunnel", **TUNNEL)
            expected = tunnels(bare)
        with world.shim() as shim:
            shim.initialize()
            assert tunnels(shim) == expected > 0
            assert (world.root / "one" / "memory" / "broker.lock").exists(), "the lock is the real folder's"
            world.palace.unlink()
            world.palace.symlink_to(world.root / "two" / "memory")
            eventually(lambda: new_palace(shim), what="a session that follows the link to the other palace")
            assert not finds(shim, "heron")


def new_palace(shim: RpcProcess) -> bool:
    """Store something; whether that worked, and not in the palace to which the link led before."""
    answer = shim.wait_response(shim.start_call("add_drawer", wing="w", room="r", content="a new palace"))
    assert "error" not in answer or "leads to another folder now" in answer["error"]["message"]
    return "error" not in answer


LEGACY = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_one_palace_said_differently_is_one_palace(world: World) -> None:
    palace = world.home / "gedächtnis" / "palace"
    ways: list[tuple[list[str], dict[str, str]]] = [
        ([str(palace)], {}),
        ([f"{palace.parent}//./palace/"], {}),
        ([str(palace), "--backend", "chroma"], {}),
        ([str(palace), "--collection", "mempalace_drawers"], {}),
        ([str(palace)], LEGACY),
    ]
    shims = [world.shim("--palace", *args, env=env) for args, env in ways]
    for number, shim in enumerate(shims):
        shim.initialize()
        assert shim.call_tool("add_drawer", wing="w", room="r", content=f"note {number}")["success"], ways[number]
        assert shim.call_tool("kg_add", subject="ada", predicate="wrote", object=f"program {number}"), ways[number]
    assert len(world.brokers()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
@pytest.mark.parametrize("alias", ["home", "palace"])
def test_a_mounted_palace_is_the_palace_by_either_name(engine: str, alias: str) -> None:
    """For two agents of one mount namespace."""
    with World(engine, by="flag") as world:
        other = world.root / "other"
        other.mkdir()
        world.palace.mkdir(mode=0o700)
        real, name = (world.home, other / ".mempalace/palace") if alias == "home" else (world.palace, other)
        mount = 'mount --make-rprivate / && mount --bind "$1" "$2" && echo ready && exec cat'
        argv = ["unshare", "-m", "sh", "-c", mount, "sh", str(real), str(other)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as inside:
            assert inside.stdout is not None
            assert inside.stdout.readline() == "ready\n"
            program = world.program("mp-shim")
            enter = ["nsenter", "-t", str(inside.pid), "--mount", program, "--palace"]
            shims = [world.spawn([*enter, str(path)]) for path in (world.palace, name)]
            for number, shim in enumerate(shims):
                shim.initialize()
                assert shim.call_tool("add_drawer", wing="w", room="r", content=f"note {number}")["success"]
                assert shim.call_tool("kg_add", subject="ada", predicate="wrote", object=f"program {number}")
            assert len(shims[0].call_tool("kg_query", entity="ada")["facts"]) == len(shims)
            assert len(world.brokers()) == 1
