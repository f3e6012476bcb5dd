"""An idle engine lets go of the palace, so that mempalace's hooks and its own commands work beside live sessions."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.protocol.engine_frames import Frame
from tests.engine_driver import EngineProcess, clean_env, make_home
from tests.harness import engine_python
from tests.proctools import open_files, owners

pytestmark = pytest.mark.engine


def mine(which: str, palace: Path, home: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The user's own `mempalace mine` of three notes."""
    folder.mkdir()
    (folder / "mempalace.yaml").write_text("wing: notes\nrooms: []\n", encoding="utf-8")
    for n in range(3):
        (folder / f"n{n}.md").write_text(f"# note {n}\n" + "herons and rivers and stones. " * 40, encoding="utf-8")
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
        done = mine(engine, palace, home, tmp_path / "notes")
        assert done.returncode == 0, done.stdout + done.stderr
        unpark(running)
        seen = everything(running)
        assert seen["status"]["total_drawers"] >= before["status"]["total_drawers"] + 3
        assert running.leave() == 0
    with EngineProcess(engine, palace, home, journal=tmp_path / "root" / "broker.journal") as fresh:
        fresh.start()
        assert everything(fresh) == seen
        assert fresh.leave() == 0
