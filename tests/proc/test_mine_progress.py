"""How far a mine is: for its own client, and for whoever looks at the broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import World, eventually, require_engine
from tests.proc.test_engine_worker import make_project
from tests.rpcproc import RpcProcess

pytestmark = pytest.mark.engine
TURNS = 40


@pytest.fixture
def world() -> Iterator[World]:
    require_engine("newest")
    with World("newest") as made:
        yield made


def conversations(base: Path, files: int) -> Path:
    folder = base / "talks"
    folder.mkdir()
    for n in range(files):
        turns = [
            {
                "type": kind,
                "message": {"role": kind, "content": f"{kind} {n}.{k}: the heron and its fish."},
            }
            for k in range(TURNS)
            for kind in ("user", "assistant")
        ]
        (folder / f"talk{n}.jsonl").write_text("\n".join(map(json.dumps, turns)))
    return folder


def notified(shim: RpcProcess) -> list[dict[str, Any]]:
    said = [json.loads(line) for line in shim.lines]
    return [one["params"] for one in said if one.get("method") == "notifications/progress"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("mode", "files", "make"), [("projects", 30, make_project), ("convos", 30, conversations)])
def test_a_mine_says_which_file_of_how_many(world: World, mode: str, files: int, make: Any) -> None:
    source = make(world.cwd, files)
    shim = world.shim()
    shim.initialize()
    arguments = {"source": str(source), "mode": mode}
    call = {"name": "mempalace_mine", "arguments": arguments, "_meta": {"progressToken": 7}}
    id_ = shim.start_request("tools/call", call)

    def running() -> dict[str, Any] | None:
        calls = world.broker().status()["lanes"]["palace"]["running"]
        return next((one for one in calls if (one["file"] or 0) > 1), None)

    seen = eventually(running, 60.0, "a second file")
    assert seen["files"] == files
    shown = world.cli("status").stdout + world.cli("top").stdout
    assert shown.count(f" of {files} (") == 2, shown
    assert "error" not in shim.wait_response(id_, 120.0)
    told = notified(shim)
    assert {one["progressToken"] for one in told} <= {7}
    values = [one["progress"] for one in told]
    assert values == sorted(set(values))
    for one in told:
        assert one.get("total", files) == files
        assert one["progress"] < files
    assert shim.finish() == 0
