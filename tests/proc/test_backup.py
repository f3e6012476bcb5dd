"""Snapshots of a palace in use are of one moment, verify, and come back; a kill at any instant loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker import errors
from tests.harness import World, eventually, repeated
from tests.load import Load

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
def test_drawers_that_chroma_has_only_queued_count(world: World) -> None:
    """As after a disk that was full: the write is in the queue, and not in the tables."""
    texts = fill(world, 6)
    world.cli("stop")
    with contextlib.closing(sqlite3.connect(world.palace / "chroma.sqlite3")) as db, db:
        (segment,) = db.execute(
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection "
            "WHERE c.name = 'mempalace_drawers' AND s.scope = 'METADATA'"
        ).fetchone()
        rows = db.execute(
            "SELECT e.id, q.seq_id FROM embeddings e JOIN embeddings_queue q ON q.id = e.embedding_id "
            "WHERE e.segment_id = ? ORDER BY q.seq_id DESC LIMIT 3",
            (segment,),
        ).fetchall()
        assert len(rows) == 3
        for row, _ in rows:
            db.execute("DELETE FROM embedding_metadata WHERE id = ?", (row,))
            db.execute("DELETE FROM embedding_fulltext_search WHERE rowid = ?", (row,))
            db.execute("DELETE FROM embeddings WHERE id = ?", (row,))
        db.execute("UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (rows[-1][1] - 1, segment))
    made = backup(world, "create")
    exported = backup(world, "export", str(world.home / "out"), made["name"], "--format", "jsonl")
    assert exported["drawers"] >= len(texts)
    written = (world.home / "out" / "drawers.jsonl").read_text()
    assert [text for text in texts if text not in written] == []
    assert found(world) == sorted(texts)


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
        argv = [world.program("mempalace-broker"), "backup", "restore", made["name"], "--yes"]
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


@pytest.mark.timeout(1200)
@repeated("rounds", 1, 50)
def test_a_backup_that_is_killed_leaves_the_palace_alone_and_nothing_that_counts(world: World, rounds: int) -> None:
    texts = sorted(fill(world, 4))
    rng = random.Random(os.environ.get("MPB_SEED"))
    for _ in range(rounds):
        argv = [world.program("mempalace-broker"), "backup", "create", "--untried"]
        process = subprocess.Popen(
            argv, env=world.env, cwd=world.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(0.1, 1.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert found(world) == texts
    for snapshot in backup(world, "list")["snapshots"]:
        assert world.cli("backup", "restore", snapshot["name"]).returncode == 0, "it is complete, or not there"
    last = backup(world, "create", "--keep", "1")
    assert os.listdir(os.path.dirname(last["path"])) == [last["name"]], "what was left is gone"


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


# --- the schedule


def configure(world: World, **settings: int | str) -> None:
    """Write config.toml, and have a broker that goes by it."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    world.settings.write_text("\n".join(["[broker]", *lines, ""]))
    world.settings.chmod(0o600)
    assert world.cli("stop").returncode == 0
    assert world.cli("ensure").returncode == 0


def scheduled(world: World) -> dict[str, Any]:
    """What `status` says of the schedule, once no snapshot is being made and the last one is known."""

    def known() -> dict[str, Any] | None:
        said: dict[str, Any] = world.broker().status()["backup"]
        return said if not said["running"] and (said["name"] or said["error"]) else None

    return eventually(known, 60.0, "a snapshot by the schedule")


def set_back(world: World, hours: float) -> None:
    """Make the last snapshot of the schedule older, as if so much time had passed without a broker."""
    assert world.cli("stop").returncode == 0
    note = json.loads(world.state("broker-backup.json").read_text())
    for name in note.keys() & {"made_at", "tried_at"}:
        note[name] -= hours * 3600
    world.state("broker-backup.json").write_text(json.dumps(note))


def test_the_broker_makes_one_when_it_is_due_and_keeps_as_many_as_asked(engine: str) -> None:
    with World(engine) as world:
        fill(world, 3)
        configure(world, backup_every_h=24, backup_keep=1)
        first = scheduled(world)
        assert first["error"] is None
        assert first["due_in_s"] > 23 * 3600
        by_hand = backup(world, "create", "--untried")
        set_back(world, 25)
        fill(world, 4)
        second = eventually(
            lambda: said if (said := scheduled(world))["name"] != first["name"] else None, 60.0, "the next one"
        )
        assert [entry["name"] for entry in backup(world, "list")["snapshots"]] == [by_hand["name"], second["name"]]
        assert backup(world, "verify", second["name"])["good"] is True
        assert world.cli("stop").returncode == 0
        assert "one every 24 h, the last is" in world.cli("doctor").stdout


@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_one_that_fails_is_told_and_its_broker_leaves_none_behind(world: World) -> None:
    fill(world, 2)
    configure(world, backup_every_h=1, backup_dir=str(world.palace / "inside"))
    assert "where containers that share the palace can write" in scheduled(world)["error"]
    assert any("scheduled snapshot" in entry["what"] for entry in world.broker().status()["degraded"])
    assert world.cli("doctor").returncode == errors.EXIT_FINDINGS
    set_back(world, 2)
    configure(world, backup_every_h=1)
    eventually(lambda: world.broker().status()["backup"]["running"], 30.0, "a snapshot under way")
    assert world.cli("stop").returncode == 0
    assert not list(world.private.rglob(".partial-*")), "the command was ended, and cleaned up"
