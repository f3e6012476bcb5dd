"""What the tool table and the schemas assume, asked of the real engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.broker.machine.tool_audit import audit
from mempalace_broker.broker.machine.tool_schemas import normalise_tools
from tests.harness import RpcError, RpcProcess, World

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def server(world: World) -> RpcProcess:
    server = world.bare()
    version = server.initialize()["serverInfo"]["version"]
    assert (DATA / f"tools-{version}.json").exists(), f"no snapshot of the tools of {version}"
    return server


def test_the_snapshots_are_what_the_engines_say(server: RpcProcess) -> None:
    version = server.initialize()["serverInfo"]["version"]
    tools = server.tools()
    assert tools == json.loads((DATA / f"tools-{version}.json").read_text(encoding="utf-8"))
    assert audit(tools) == []


@pytest.mark.parametrize(
    ("spelling", "stored"),
    [
        ({"entry": "by entry"}, "by entry"),
        ({"content": "by content"}, "by content"),
        ({"entry": "the entry wins", "content": "not this"}, "the entry wins"),
        ({"entry": None, "content": "null is no entry"}, "null is no entry"),
    ],
)
def test_the_diary_takes_both_spellings(server: RpcProcess, spelling: dict[str, Any], stored: str) -> None:
    # That is why the normalised schema needs no rewriting of arguments.
    [schema] = [t["inputSchema"] for t in normalise_tools(server.tools()) if t["name"].endswith("diary_write")]
    assert set(spelling) <= set(schema["properties"])
    assert server.call_tool("diary_write", agent_name="a", **spelling)["success"] is True
    [entry] = server.call_tool("diary_read", agent_name="a")["entries"]
    assert entry["content"] == stored


def test_a_diary_without_an_entry_is_refused_by_the_engine_itself(server: RpcProcess) -> None:
    with pytest.raises(RpcError, match="entry"):
        server.call_tool("diary_write", agent_name="a")


def test_facts_that_may_be_written_again(server: RpcProcess) -> None:
    fact: dict[str, Any] = {"subject": "Max", "predicate": "likes", "object": "chess"}

    def stored() -> int:
        return len(server.call_tool("kg_query", entity="Max")["facts"])

    def add(**more: Any) -> str:
        triple: str = server.call_tool("kg_add", **fact, **more)["triple_id"]
        return triple

    assert add() == add()
    assert stored() == 1
    server.call_tool("kg_invalidate", **fact)
    server.call_tool("kg_invalidate", **fact)
    assert stored() == 1
    add()  # after an invalidate it is a new fact: why nothing may run between a call and its replay
    assert stored() == 2
    server.call_tool("kg_invalidate", **fact)
    assert add(valid_from="2020-01-01", valid_to="2021-01-01") != add(valid_from="2020-01-01", valid_to="2021-01-01")
    assert stored() == 4  # born closed, stored twice: why ToolRule.replay_for says NEVER


def test_sync_tests_truth_not_type(server: RpcProcess, world: World) -> None:
    server.call_tool("add_drawer", wing="w", room="r", content="anything")
    dry = server.call_tool("sync", project_dir=str(world.cwd))
    assert dry["dry_run"] is True
    wet = server.call_tool("sync", project_dir=str(world.cwd), apply="false")
    assert wet["dry_run"] is False  # ToolRule.may_write follows mempalace, not the schema
