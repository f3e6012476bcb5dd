"""An idle engine lets go of the palace, so that mempalace's hooks and its own commands work beside live sessions."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker import errors
from mempalace_broker.protocol.engine_frames import Frame
from tests.engine_driver import EngineProcess, clean_env, make_home
from tests.harness import RpcError, RpcProcess, World, engine_python, eventually
from tests.hooks import HUMAN_MESSAGES, run_hook, transcript
from tests.proctools import open_files, owners

pytestmark = pytest.mark.engine


def write_notes(folder: Path) -> Path:
    """A folder for `mempalace mine`, with three files."""
    folder.mkdir()
    (folder / "mempalace.yaml").write_text("wing: notes\nrooms: []\n", encoding="utf-8")
    for n in range(3):
        (folder / f"n{n}.md").write_text(f"# note {n}\n" + "herons and rivers and stones. " * 8, encoding="utf-8")
    return folder


def mine(which: str, palace: Path, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The user's own `mempalace mine`."""
    argv = [str(engine_python(which).parent / "mempalace"), "--palace", str(palace), "mine", str(folder)]
    return subprocess.run(argv, env=clean_env(home), capture_output=True, text=True, timeout=100, check=False)


def park(engine: EngineProcess) -> None:
    engine.send(Frame("park"))
    assert json.loads(engine.expect("parked").payload) == {"problem": ""}


def unpark(engine: EngineProcess) -> dict[str, Any]:
    engine.send(Frame("unpark"))
    ready: dict[str, Any] = json.loads(engine.expect("ready").payload)
    return ready


def everything(engine: EngineProcess) -> dict[str, Any]:
    """What the tools say of the palace."""
    drawers = engine.tool("list_drawers", {"limit": 100})["drawers"]
    found = engine.tool("search", {"query": "herons and stones", "limit": 20})
    status = engine.tool("status")
    status.pop("sqlite_integrity", None)  # looked at once in the life of a server
    return {
        "status": status,
        "drawers": sorted(drawers, key=str),
        "search": sorted(hit["text"] for hit in found["results"]),
        "taxonomy": engine.tool("get_taxonomy"),
        "graph": engine.tool("graph_stats"),
        "kg": engine.tool("kg_query", {"entity": "heron"}, lane="free"),
    }


def test_a_parked_engine_has_no_file_open_and_sees_afterwards_what_a_mine_stored(engine: str, tmp_path: Path) -> None:
    home, palace = make_home(tmp_path), tmp_path / "root" / "palace"
    palace.mkdir(parents=True)
    with EngineProcess(engine, palace, home, journal=tmp_path / "root" / "broker.journal") as running:
        running.start()
        running.tool("add_drawer", {"wing": "w", "room": "r", "content": "the heron waits"})
        running.tool("kg_add", {"subject": "heron", "predicate": "eats", "object": "fish"}, lane="free")
        before = everything(running)
        for _ in range(2):
            park(running)
            assert running.process.pid not in owners(palace)
            assert not [path for path in open_files(running.process.pid) if "mine_palace" in path]
            assert unpark(running)["degraded"] == []
            assert everything(running) == before
        park(running)
        done = mine(engine, palace, home, write_notes(tmp_path / "notes"))
        assert done.returncode == 0, done.stdout + done.stderr
        unpark(running)
        seen = everything(running)
        assert seen["status"]["total_drawers"] >= before["status"]["total_drawers"] + 3
        assert running.leave() == 0
    with EngineProcess(engine, palace, home, journal=tmp_path / "root" / "broker.journal") as fresh:
        fresh.start()
        assert everything(fresh) == seen
        assert fresh.leave() == 0


# -- beside sessions -----------------------------------------------------------------------------------


class Team:
    """Eight agents of one palace, and what was acknowledged to them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stored: dict[str, str] = {}  # drawer id -> text
        self.shims = [world.shim() for _ in range(8)]
        for shim in self.shims:
            shim.initialize()

    def start_writing(self, word: str) -> list[tuple[RpcProcess, Any, str]]:
        texts = [f"{word} {number}: the heron saw it" for number in range(len(self.shims))]
        calls = zip(self.shims, texts, strict=True)
        return [
            (shim, shim.start_call("add_drawer", wing="team", room="r", content=text), text) for shim, text in calls
        ]

    def acknowledged(self, calls: list[tuple[RpcProcess, Any, str]]) -> None:
        for shim, id_, text in calls:
            told = json.loads(shim.wait_response(id_, 200.0)["result"]["content"][0]["text"])
            assert told["success"] is True, told
            self.stored[told["drawer_id"]] = text

    def pause(self) -> None:
        """No calls, until the engine is parked."""
        eventually(lambda: self.world.broker().status()["engine"]["state"] == "parked", what="a parked engine")

    def another_opener(self) -> None:
        """mempalace's own command has the palace."""
        engine = self.world.broker().status()["engine"]["pid"]
        eventually(lambda: self.world.owners() - {engine}, 60.0, "a command of mempalace's with the palace open")


def delete_as_stock_does(world: World) -> None:
    """Leave an index with deletes: 3.4.0 stores it at every second write, and another 3.4.0 takes it for corrupt."""
    bare = world.bare()
    bare.initialize()
    ids = [
        bare.call_tool("add_drawer", wing="old", room="r", content=f"old note {n} of the stork")["drawer_id"]
        for n in range(8)
    ]
    bare.call_tool("delete_drawer", drawer_id=ids[0])
    bare.call_tool("delete_drawer", drawer_id=ids[1])
    assert bare.finish() == 0


@pytest.mark.timeout(400)
def test_hooks_and_mine_save_beside_eight_sessions_that_pause(engine: str) -> None:
    alone = {"MEMPALACE_HUB_FORWARD": "0"}  # as commands before 3.8, and those that never come through a hub
    with World(engine, env={"MEMPALACE_BROKER_PARK_S": "1", "MEMPALACE_MCP_TIMEOUT_MS": "200000", **alone}) as world:
        if engine == "3.4.0":
            delete_as_stock_does(world)
        team = Team(world)
        with world.watch_owners() as sampler:
            team.acknowledged(team.start_writing("before"))
            team.pause()
            assert "woven into the palace" in run_hook(world, "stop", transcript(world))["systemMessage"]
            team.another_opener()
            team.acknowledged(team.start_writing("while the hook mines"))
            team.pause()
            notes = write_notes(world.cwd / "notes")
            miner = world.spawn([str(Path(world.server[0]).parent / "mempalace"), "mine", str(notes)])
            team.another_opener()
            team.acknowledged(team.start_writing("while a command mines"))
            assert miner.wait(100) == 0
            wings = team.shims[0].call_tool("list_wings")["wings"]
        status = world.broker().status()["engine"]
        assert status["generation"] == 1
        # A hook and the mine that it starts are both mempalace's own, and may meet.
        assert not [pids for pids in sampler.together if status["pid"] in pids], sampler.worst
        assert (wings["team"], wings["notes"]) == (24, 3)
        assert wings["sessions"] >= HUMAN_MESSAGES
        assert not list(world.palace.glob("*.corrupt-*")) + list(world.palace.glob("*.drift-*"))
        for shim in team.shims:
            assert shim.finish() == 0
        assert world.cli("stop").returncode == 0
        fresh = world.bare()
        fresh.initialize()
        assert fresh.call_tool("list_wings")["wings"] == wings
        for drawer, text in team.stored.items():
            assert fresh.call_tool("get_drawer", drawer_id=drawer)["content"] == text
        found = fresh.call_tool("search", query="while a command mines 7: the heron saw it", limit=1)["results"]
        assert found[0]["text"] == "while a command mines 7: the heron saw it"
        assert fresh.finish() == 0


HOLD = """
import sys
from mempalace.palace import mine_palace_lock
palace, sys.argv = sys.argv[1], ["/venv/bin/mempalace", "mine", "/secret/project"]
with mine_palace_lock(palace):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_call_that_waits_for_a_long_mine_ends_by_its_limit_and_names_the_holder() -> None:
    with World("newest", env={"MEMPALACE_BROKER_PARK_S": "1", "MEMPALACE_MCP_TIMEOUT_MS": "1500"}) as world:
        team = Team(world)
        shim = team.shims[0]
        team.pause()
        argv = [str(engine_python("newest")), "-c", HOLD, str(world.palace)]
        holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=world.env)
        assert holder.stdin is not None
        assert holder.stdout is not None
        with holder:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(RpcError) as refused:
                shim.call_tool("search", query="heron")
            assert refused.value.code == errors.WAIT_TIMEOUT
            assert f"pid {holder.pid} (mempalace mine), since 20" in str(refused.value)
            assert "/secret" not in str(refused.value)
            assert shim.tools()
            status = world.broker().status()
            assert status["engine"]["state"] == "unparking"
            assert f"pid {holder.pid} (mempalace mine)" in status["engine"]["waits_for"]
            holder.stdin.close()
        assert shim.call_tool("add_drawer", wing="w", room="r", content="the heron waited")["success"] is True
