"""MEMPALACE_MCP_READ_ONLY is a property of a session: the first starter's is not everybody's, a later one's holds."""

from __future__ import annotations

import pytest

from mempalace_broker.errors import READ_ONLY
from tests.harness import World
from tests.rpcproc import RpcProcess

pytestmark = pytest.mark.engine

WRITES = ("add_drawer", "kg_add", "diary_write", "memories_filed_away", "delete_drawer", "hook_settings")


def listed(server: RpcProcess) -> list[str]:
    server.initialize()
    return [tool["name"] for tool in server.request("tools/list", {})["result"]["tools"]]


def refused(server: RpcProcess, tool: str) -> object:
    return server.request("tools/call", {"name": f"mempalace_{tool}", "arguments": {}}).get("error")


@pytest.mark.parametrize("engine", ["newest"], indirect=True)
@pytest.mark.parametrize("how", ["variable", "option"])
def test_each_session_is_as_bare_mempalace_would_be(world: World, how: str) -> None:
    env = {"MEMPALACE_MCP_READ_ONLY": " Yes "} if how == "variable" else {}
    args = [] if how == "variable" else ["--read-only"]
    bare = world.bare(env={"MEMPALACE_MCP_READ_ONLY": "1"})
    expected = listed(bare)
    refusals = {tool: refused(bare, tool) for tool in WRITES}
    bare.release()
    first = world.shim(*args, env=env)  # it starts the broker
    assert listed(first) == expected
    assert {tool: refused(first, tool) for tool in WRITES} == refusals
    assert first.call_tool("kg_stats")["triples"] == 0
    other = world.shim()
    assert len(listed(other)) > len(expected)
    assert other.call_tool("kg_add", subject="a", predicate="is", object="b")["success"]
    assert first.call_tool("kg_stats")["triples"] == 1


@pytest.mark.parametrize("engine", ["3.4.0"], indirect=True)
def test_a_mempalace_without_that_mode_gets_it(world: World) -> None:
    shim = world.shim(env={"MEMPALACE_MCP_READ_ONLY": "1"})
    names = listed(shim)
    assert "mempalace_search" in names
    assert not {f"mempalace_{tool}" for tool in WRITES} & set(names)
    for tool in WRITES:
        error = refused(shim, tool)
        assert isinstance(error, dict)
        assert error["code"] == READ_ONLY
