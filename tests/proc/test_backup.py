"""Snapshots of a palace in use are of one moment, verify, and come back; a kill at any instant loses nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker import errors
from tests.harness import World, eventually, repeated
from tests.load import Load
from tests.proc.test_exclusive import program

pytestmark = pytest.mark.engine


def backup(world: World, *words: str, timeout: float = 120.0) -> dict[str, Any]:
    """Run `backup ... --json`; what it says."""
    done = world.cli("backup", *words, "--json", timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def fill(world: World, count: int) -> list[str]:
    """Store drawers and a fact; the texts."""
    shim = world.shim()
    shim.initialize()
    texts = [f"the heron number {n} waits in the water" for n in range(count)]
    for text in texts:
        shim.call_tool("add_drawer", wing="w", room="r", content=text)
    shim.call_tool("kg_add", subject="heron", predicate="eats", object="fish")
    assert shim.finish() == 0
    return texts


def found(world: World) -> list[str]:
    """The texts of all drawers, by id, and that search and graph work."""
    shim = world.shim()
    shim.initialize()
    drawers = [entry["drawer_id"] for entry in shim.call_tool("list_drawers", limit=100)["drawers"]]
    texts = [shim.call_tool("get_drawer", drawer_id=drawer)["content"] for drawer in drawers]
    assert shim.call_tool("search", query="heron", limit=1)["results"]
    assert "fish" in str(shim.call_tool("kg_query", entity="heron"))
    assert shim.finish() == 0
    return sorted(texts)


def test_a_snapshot_is_made_listed_verified_and_restored(engine: str) -> None:
    with World(engine) as world:
        texts = fill(world, 6)
        made = backup(world, "create")
        assert made["tried"] is True
        assert Path(made["path"]).is_relative_to(world.private)
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", wing="w", room="r", content="the heron that came later")
        assert backup(world, "restore")["restored"] is False
        restored = backup(world, "restore", "--yes")
        assert found(world) == sorted(texts)
        assert (Path(restored["before"]) / "chroma.sqlite3").exists()
        shim.finish()


@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_what_does_not_verify_is_refused_and_unchanged_files_are_shared(world: World) -> None:
    fill(world, 3)
    one = backup(world, "create", "--untried")
    two = backup(world, "create", "--untried")
    shared = [
        name
        for name in json.loads((Path(two["path"]) / "manifest.json").read_text())["files"]
        if (Path(one["path"]) / name).samefile(Path(two["path"]) / name)
    ]
    assert "palace/chroma.sqlite3" in shared
    (Path(two["path"]) / "palace" / "chroma.sqlite3").unlink()
    (Path(two["path"]) / "palace" / "chroma.sqlite3").write_bytes(b"SQLite format 3\0" * 100)
    for words in (["verify"], ["restore", "--yes"]):
        refused = world.cli("backup", *words)
        assert refused.returncode == errors.EXIT_FAILURE
        assert "is not what was backed up" in refused.stderr
    assert backup(world, "verify", one["name"])["good"] is True
    three = backup(world, "create", "--untried", "--keep", "1")
    assert three["removed"] == [one["name"], two["name"]]
    assert [entry["name"] for entry in backup(world, "list")["snapshots"]] == [three["name"]]
    assert world.cli("backup", "verify", "../../evil").returncode == errors.EXIT_FAILURE
    assert world.cli("backup", "create", "--dir", str(world.palace / "b")).returncode == errors.EXIT_STATE_ROOT
    (world.cwd / "open").mkdir()
    (world.cwd / "open").chmod(0o777)
    assert world.cli("backup", "list", "--dir", str(world.cwd / "open")).returncode == errors.EXIT_STATE_ROOT


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
@repeated("rounds", 1, 40)
def test_a_restore_that_is_killed_is_not_begun_or_finished_by_the_next_engine(world: World, rounds: int) -> None:
    texts = fill(world, 4)
    made = backup(world, "create", "--untried")
    rng = random.Random(os.environ.get("MPB_SEED"))
    for _ in range(rounds):
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", wing="w", room="r", content="the heron that came later")
        argv = [program(world), "backup", "restore", made["name"], "--yes"]
        process = subprocess.Popen(argv, env=world.env, cwd=world.cwd, stdout=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.2, 3.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        now = found(world)
        assert now in (sorted(texts), sorted([*texts, "the heron that came later"])), now
        eventually(lambda: not list(world.private.rglob("*restore.json")), what="no restore left undone")
        shim.finish()
        if now != sorted(texts):
            backup(world, "restore", made["name"], "--yes")
        assert found(world) == sorted(texts)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_snapshots_under_load_hold_all_that_was_acknowledged(world: World) -> None:
    with Load(world, sessions=4, patience=200.0) as load:
        load.wait_writes(20, 200.0)
        before = [dict(session.drawers) for session in load.sessions]
        for _ in range(3):
            made = backup(world, "create", timeout=300.0)
            load.wait_writes(10, 200.0)
    load.verify()
    backup(world, "restore", made["name"], "--yes")
    shim = world.shim()
    shim.initialize()
    for drawers in before:
        for token, drawer in drawers.items():
            assert token in str(shim.call_tool("get_drawer", drawer_id=drawer))
    shim.finish()
