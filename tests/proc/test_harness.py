"""The harness itself, with the bare server: it works, and it notices what a test leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import proctools
from tests.harness import RpcError, World, eventually
from tests.hooked import steady
from tests.rpcproc import NoAnswer


def test_a_bare_server_works_in_a_world_of_its_own(world: World) -> None:
    with world.watch_owners() as watch:
        server = world.bare()
        assert server.initialize()["serverInfo"]["name"] == "mempalace"
        added = server.call_tool("add_drawer", wing="w", room="r", content="the quick brown fox")
        assert added["success"] is True
        assert server.pid in world.owners()
        eventually(lambda: watch.seen, what="a sample with an owner")
    assert watch.seen == {server.pid}
    assert watch.most == 1
    assert (world.palace / "chroma.sqlite3").exists()
    assert server.memory_kb()["rss"] > 50_000
    assert server.finish() == 0
    assert server.untaken() == []


def test_what_a_steady_engine_caches_never_expires(tmp_path: Path, engine: str) -> None:
    code = "import sys, mempalace.mcp_server as m, mempalace.palace_graph as g; sys.stderr.write(repr(("
    code += "getattr(m, '_NODE_PROFILE_TTL_S', None), g._GRAPH_CACHE_TTL)))"
    told = subprocess.run(
        [steady(tmp_path / "steady", engine), "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stderr.endswith("(None, inf)" if engine == "3.4.0" else "(inf, inf)"), "3.4.0 has no profile"


def test_two_bare_servers_are_seen_as_two_owners(world: World) -> None:
    one, two = world.bare(), world.bare()
    one.initialize()
    two.initialize()
    one.call_tool("add_drawer", wing="w", room="r", content="hello")
    two.call_tool("list_drawers")
    assert world.owners() == {one.pid, two.pid}


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_errors_and_silence_have_names(world: World) -> None:
    server = world.bare()
    server.initialize()
    with pytest.raises(RpcError, match="Unknown tool") as error:
        server.call_tool("teleport")
    assert error.value.code == -32601
    server.stop()
    with pytest.raises(NoAnswer, match="not within"):
        server.request("ping", timeout=0.2)
    server.cont()
    assert server.wait_response(3)["result"] == {}
    assert server.request("ping", id_="7")["id"] == "7"


def test_a_process_left_behind_fails_the_test_and_is_ended() -> None:
    world = World(engine=None)
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"],
        env=world.env,
        start_new_session=True,
    )
    eventually(lambda: orphan.pid in world.pids(), what="the mark to be seen")
    with pytest.raises(AssertionError, match=f"left behind:\n{orphan.pid} "):
        world.close(end_s=0.2)
    assert orphan.wait(10) == -9
    assert not world.root.exists()


def test_a_stopped_agent_is_ended_too() -> None:
    with World(engine=None) as world:
        cat = world.spawn(["/bin/cat"])
        cat.send({"jsonrpc": "2.0", "id": 1, "result": "echo"})
        assert cat.wait_response(1)["result"] == "echo"
        cat.stop()
        assert proctools.state_of(cat.pid) == "T"
    assert not proctools.is_running(cat.pid)


def test_a_world_leaks_nothing_of_ours_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMPALACE_PALACE_PATH", "/not/this")
    monkeypatch.setenv("PYTHONPATH", "/nor/this")
    with World(engine=None) as world:
        lines = world.run("/usr/bin/env").stdout.splitlines()
        assert f"HOME={world.home}" in lines
        assert not [line for line in lines if "/not/this" in line or "/nor/this" in line]
        assert not os.path.exists(world.palace)


def test_eventually_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.02 s: the moon"):
        eventually(lambda: False, 0.02, "the moon")
