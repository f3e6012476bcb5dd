"""mempalace's hooks and its commands with --daemon save through the broker, and what was accepted is run once."""

from __future__ import annotations

import json
import random
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker.http.machine.hub_record import ENDPOINT, key_of
from tests import harness
from tests.harness import World, engine_python, eventually, kill_pid, repeated
from tests.hooked import hooked
from tests.hooks import HUMAN_MESSAGES, run_hook, transcript
from tests.proctools import fetch

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
VERSIONS = harness.versions(["newest"], harness.WITH_HUB)


class Door:
    """The job API, as mempalace's clients find it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.folder = world.home / ".mempalace" / "daemon" / key_of(str(world.palace.resolve()))

    def endpoint(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / ENDPOINT).read_bytes()) if self.folder.exists() else {}
        return told

    def wait_for(self, broker: int) -> None:
        eventually(lambda: self.ask("GET", "/health")["pid"] == broker, what="an answer of that broker")

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        token = (self.folder / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.endpoint()['port']}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        told: dict[str, Any] = json.loads(fetch(request))
        return told

    def submit(self, kind: str, **payload: Any) -> str:
        return str(self.ask("POST", "/jobs", {"kind": kind, "payload": payload})["job"]["id"])

    def over(self, id_: str) -> dict[str, Any]:
        """The job, once it is."""

        def found() -> dict[str, Any] | None:
            job: dict[str, Any] = self.ask("GET", f"/jobs/{id_}")["job"]
            return job if job["state"] in ("succeeded", "failed") else None

        return eventually(found, 100, "the end of the job")


def prefer_us(world: World) -> None:
    """What `setup` offers."""
    path = world.state_root / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "write_routing": {"hooks": "prefer"}}))


def bare_wings(world: World) -> dict[str, int]:
    """What a fresh engine without any broker finds."""
    assert world.cli("stop").returncode == 0
    fresh = world.bare()
    fresh.initialize()
    wings: dict[str, int] = fresh.call_tool("list_wings")["wings"]
    assert fresh.finish(20) == 0
    return wings


@pytest.fixture(params=VERSIONS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    harness.require_engine(request.param)
    with World(request.param) as world:
        prefer_us(world)
        yield world


def test_hooks_save_beside_sessions_that_write(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="team", room="r", content="the heron is back")
    door = Door(world)
    eventually(door.endpoint, what="the record of a daemon")
    with world.watch_owners() as sampler:
        stop = run_hook(world, "stop", transcript(world, "one"))
        assert "woven into the palace" in stop["systemMessage"]
        run_hook(world, "session-end", transcript(world, "two", "crane"), "s2")
        run_hook(world, "precompact", transcript(world, "three", "stork"), "s3")
        shim.call_tool("add_drawer", wing="team", room="r", content="the heron stays")
        eventually(lambda: set(door.ask("GET", "/health")["counts"]) == {"succeeded"}, 100, "the end of all jobs")
    assert sampler.most == 1, sampler.worst
    jobs = door.ask("GET", "/jobs?limit=9")["jobs"]
    assert sorted(job["kind"] for job in jobs) == ["diary_write", "diary_write", "mine", "mine", "mine"]
    wings = bare_wings(world)
    assert wings["team"] == 2
    assert wings["sessions"] >= 3 * HUMAN_MESSAGES


def test_commands_with_daemon_print_what_they_print_alone(world: World) -> None:
    world.shim().initialize()
    eventually(Door(world).endpoint, what="the record of a daemon")
    notes = world.cwd / "notes"
    notes.mkdir()
    (notes / "pond.md").write_text("The duck swims in the pond. " * 20)
    with world.watch_owners() as sampler:
        mined = world.mempalace("mine", str(notes), "--daemon")
        assert (mined.returncode, "Files processed: 1" in mined.stdout) == (0, True), mined.stderr
        synced = world.mempalace("sync", str(notes), "--daemon")
        assert (synced.returncode, "DRY RUN" in synced.stdout) == (0, True), synced.stderr
        submitted = world.mempalace("mine", str(notes), "--daemon", "--background")
        (job,) = re.findall(r"Submitted daemon job (\w+) \(mine\)", submitted.stdout)
        assert world.mempalace("daemon", "wait", job).returncode == 0
        for words, shown in (
            (["start"], "daemon running"),
            (["status"], "daemon is running"),
            (["jobs"], "succeeded  mine"),
        ):
            done = world.mempalace("daemon", *words)
            assert (done.returncode, shown in done.stdout) == (0, True), done.stderr
        refused = world.mempalace("daemon", "stop")
        assert (refused.returncode, "mempalace-broker stop" in refused.stderr) == (1, True)
    assert sampler.most == 1, sampler.worst
    assert bare_wings(world)["notes"] == 1


def test_jobs_of_kind_sync_and_sweep_write(world: World) -> None:
    world.shim().initialize()
    door = Door(world)
    eventually(door.endpoint, what="the record of a daemon")
    notes = world.cwd / "notes"
    notes.mkdir()
    for name in ("duck", "swan"):
        (notes / f"{name}.md").write_text(f"The {name} swims in the pond. " * 20)
    session = world.cwd / "session.jsonl"
    more = {"type": "user", "sessionId": "s1", "timestamp": "2026-01-01T00:00:00Z"}
    said = [{"role": "user", "content": f"heron {n} waits in the water"} for n in range(HUMAN_MESSAGES)]
    lines = [json.dumps({**more, "uuid": f"u{n}", "message": message}) for n, message in enumerate(said)]
    session.write_text("\n".join(lines) + "\n")
    assert world.mempalace("mine", str(notes), "--daemon").returncode == 0
    (notes / "duck.md").unlink()
    with world.watch_owners() as sampler:
        synced = world.mempalace("sync", str(notes), "--apply", "--daemon")
        assert synced.returncode == 0, synced.stderr
        swept = door.over(door.submit("sweep", target=str(session)))
    assert sampler.most == 1, sampler.worst
    assert world.cli("stop").returncode == 0
    fresh = world.bare()
    fresh.initialize()
    drawers = fresh.call_tool("status")["total_drawers"]
    assert fresh.call_tool("list_wings")["wings"]["notes"] == 1
    assert fresh.finish(20) == 0
    if world.engine in ("3.8.0", "3.9.0"):  # their daemon has no such job
        assert (swept["state"], "unknown daemon job kind" in str(swept["error"])) == ("failed", True)
    else:
        assert swept["state"] == "succeeded", swept
        assert drawers == 1 + HUMAN_MESSAGES


@repeated("kills", 4, 40)
def test_what_was_accepted_is_stored_once_whoever_is_killed_in_the_middle(kills: int) -> None:
    harness.require_engine("newest")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with World("newest") as world:
        shim = world.shim()
        shim.initialize()
        door = Door(world)
        eventually(door.endpoint, what="the record of a daemon")
        entries = [f"entry {n} is about a heron. " * chance.choice((1, 1, 60)) for n in range(kills)]  # some in parts
        ids = []
        for n, entry in enumerate(entries):
            broker = world.broker()
            engine = broker.engine_pid()
            ids.append(door.submit("diary_write", agent_name=f"hook{n}", entry=entry))
            time.sleep(chance.uniform(0.0, chance.choice((0.1, 1.0))))
            kill_pid(engine)
            if n % 4 == 3:
                broker.kill()
            shim.call_tool("kg_stats", 60.0)
            door.wait_for(world.broker().pid)
        ends = [door.over(id_) for id_ in ids]
        hit = sum(job["attempts"] > 1 or "note" in job["result"] for job in ends)
        there = sum("note" in job["result"] for job in ends)
        print(f"{kills} kills, {hit} in the middle of a job, {there} of them after it was stored")
        assert [job["error"] for job in ends if job["state"] != "succeeded"] == []
        assert world.cli("stop").returncode == 0
        fresh = world.bare()
        fresh.initialize()
        for n, entry in enumerate(entries):
            shown = fresh.call_tool("diary_read", agent_name=f"hook{n}", last_n=100)["entries"]
            assert sum(len(part["content"]) for part in shown) == len(entry), (n, shown)
            assert all(part["content"] in entry for part in shown)
            assert len({part["timestamp"] for part in shown}) == 1, (n, shown)
        assert fresh.finish(20) == 0


_KILLED = """
import importlib.machinery, os, signal, sys

NAME = "chromadb.api.models.Collection"

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            add = module.Collection.add
            def add_or_die(*args, **words):
                order = os.path.exists(ORDER) and open(ORDER).read()
                if order:
                    os.unlink(ORDER)
                if order == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                told = add(*args, **words)
                if order == "after":
                    os.kill(os.getpid(), signal.SIGKILL)
                return told
            module.Collection.add = add_or_die
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("instant", ["before", "after"])
@pytest.mark.parametrize("length", [1, 60], ids=["short", "in parts"])
def test_an_entry_whose_engine_dies_beside_the_store_is_stored_once(version: str, instant: str, length: int) -> None:
    harness.require_engine(version)
    with World(version) as world:
        order = Path(world.env["TMPDIR"]) / "order"  # the engine can't remove a file elsewhere
        entry = "the heron is back in the pond. " * length
        code = f"ORDER = {str(order)!r}\n{_KILLED}"
        world.env["MEMPALACE_BROKER_ENGINE"] = str(hooked(world.root / "hooked", engine_python(version), code))
        shim = world.shim()
        shim.initialize()
        door = Door(world)
        eventually(door.endpoint, what="the record of a daemon")
        engine = world.broker().engine_pid()
        order.write_text(instant)
        job = door.over(door.submit("diary_write", agent_name="hook", entry=entry, wing="wing_pond"))
        assert not order.exists()
        assert world.broker().engine_pid() != engine
        assert (job["state"], job["attempts"]) == ("succeeded", 2 if instant == "before" else 1)
        assert ("note" in job["result"]) is (instant == "after")
        shown = shim.call_tool("diary_read", agent_name="hook", last_n=100)["entries"]
        assert sum(len(part["content"]) for part in shown) == len(entry)
        assert shim.finish() == 0


def test_guests_hand_in_no_jobs(world: World) -> None:
    world.shim().initialize()
    door = Door(world)
    eventually(door.endpoint, what="the record of a daemon")
    token = world.cli("token", "--http").stdout.strip()
    port = door.endpoint()["port"]
    for method, path in (("GET", "/health"), ("GET", "/jobs"), ("POST", "/jobs"), ("POST", "/shutdown")):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers, data=None)
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(request)
        assert refused.value.code == 403
    assert world.broker().running


def test_the_folder_of_a_daemon_that_has_gone_makes_room() -> None:
    harness.require_engine("newest")
    with World("newest") as world:
        door = Door(world)
        door.folder.mkdir(parents=True)
        (door.folder / ENDPOINT).write_text(json.dumps({"pid": 1 << 22, "port": 1}))
        (door.folder / "queue.sqlite3").touch()
        world.shim().initialize()
        eventually(lambda: door.endpoint().get("port", 1) != 1, what="our record")
        (aside,) = door.folder.parent.glob("*.before-broker-*")
        assert (aside / "queue.sqlite3").exists()
        eventually(lambda: str(aside) in world.log(), what="a line about it")


def left(world: World) -> list[Path]:
    return sorted(Path(world.state("jobs")).glob("*.json"))


def test_what_a_job_said_does_not_stay(world: World) -> None:
    world.shim().initialize()
    door = Door(world)
    eventually(door.endpoint, what="the record of a daemon")
    id_ = door.submit("diary_write", agent_name="hook", entry="a secret of mine")
    assert door.over(id_)["state"] == "succeeded"
    eventually(lambda: all(b"a secret" not in path.read_bytes() for path in left(world)), what="a file without it")
    assert "a secret" not in world.log()
