"""Stock servers of each version come through the broker, and no death of a broker makes one of them open the palace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.protocol.write_lock import FOLDER, lock_name, read_note
from tests import harness
from tests.background import Background
from tests.harness import RpcError, World, engine_python, eventually, kill_pid, payload
from tests.proctools import STORE_SUFFIXES, is_running
from tests.rpcproc import full_name
from tests.ways import hub_record

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
VERSIONS = harness.versions(["newest"], harness.WITH_HUB)


@pytest.fixture(params=VERSIONS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    harness.require_engine(request.param)
    with World(request.param) as world:
        world.shim().initialize()
        eventually(lambda: hub_record(world), what="the record of a hub")
        yield world


def requests(world: World) -> int:
    return int(world.broker().status()["http"]["requests"])


def servers(world: World) -> dict[str, list[str]]:
    """The commands by which agents start a stock server of that version."""
    assert world.engine is not None
    python = engine_python(world.engine)
    found = {"mempalace-mcp": world.server, "mcp_server": [str(python), "-m", "mempalace.mcp_server"]}
    light = python.parent / "mempalace-light-mcp"
    return {**found, "light": [str(light)]} if light.exists() else found


def stores_open_for_writing(pid: int) -> list[str]:
    """The databases that a process could change."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            words = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split()
            if os.readlink(fd).endswith(STORE_SUFFIXES) and int(words[words.index("flags:") + 1], 8) & os.O_ACCMODE:
                found.append(os.readlink(fd))
    return found


def test_each_stock_server_writes_and_reads_through_the_broker(world: World) -> None:
    for number, (name, argv) in enumerate(servers(world).items()):
        before = requests(world)
        with world.watch_owners() as sampler:
            stock = world.spawn(argv)
            stock.initialize()
            text = f"the heron number {number} says hello"
            if name == "light":
                diary = {"action": "diary_write", "agent_name": "light", "entry": text}
                fact = {"action": "kg_add", "subject": "light", "predicate": "says", "object": "hello"}
                for command, word in ((diary, "entry_id"), (fact, "triple_id")):
                    told = stock.request("tools/call", {"name": "palace_exec", "arguments": command}, 60.0)
                    assert word in str(told), told
            else:
                assert stock.tools()
                stock.call_tool("add_drawer", 60.0, wing="w", room="r", content=text)
                assert stock.call_tool("search", 60.0, query=text, limit=1)["results"][0]["text"] == text
            writable = stores_open_for_writing(stock.pid)
            assert stock.finish(30) == 0
        if name != "light":  # which looks up wings and tunnels in the palace itself, hub or not
            assert not writable, name
        if name == "mempalace-mcp":  # "mcp_server" reads the database through at its start, and keeps that descriptor
            assert sampler.most <= 1, sampler.worst
            assert stock.pid not in sampler.seen
        assert requests(world) >= before + 2, name


def lock_holder(world: World) -> int:
    """Who has mempalace's own write lock, 0 if nobody has."""
    with (world.home / FOLDER / lock_name(str(world.palace.resolve()))).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_note(file.read(4096))[0]
        return 0


class Writer(Background):
    """A stock server that writes one drawer after the other. `stored`: those that were acknowledged."""

    end_s = 100.0

    def __init__(self, world: World) -> None:
        self.server = world.bare()
        self.server.initialize()
        self.stored: list[str] = []
        self.broken = 0
        self.ending = threading.Event()

    def run(self) -> None:
        n = 0
        while not self.ending.is_set():
            n += 1
            try:
                told = self.server.call_tool("add_drawer", 90.0, wing="w", room="r", content=f"heron {n} waits")
                self.stored.append(told["drawer_id"])
            except RpcError:
                self.broken += 1

    def end(self) -> None:
        self.ending.set()

    def more(self, count: int = 3) -> None:
        goal = len(self.stored) + count
        eventually(lambda: len(self.stored) >= goal, 60.0, "more acknowledged writes")


def test_no_restart_or_kill_of_a_broker_makes_a_stock_server_open_the_palace(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    with Writer(world) as writer, world.watch_owners(0.02) as sampler:
        writer.more()
        eventually(lambda: hub_record(world)["pid"] != world.broker().pid, what="a keeper in the record")
        for _ in range(2):
            assert world.cli("restart").returncode == 0
            writer.more()
        broken_by_restart = writer.broken
        for _ in range(3):
            eventually(lambda: hub_record(world)["pid"] != world.broker().pid, what="a keeper in the record")
            world.broker().kill()
            shim.call_tool("kg_stats", 60.0)  # the shim starts the next one
            writer.more()
    assert broken_by_restart == 0
    assert writer.broken <= 3, "a kill breaks off one call"
    assert sampler.most == 1, sampler.worst
    assert writer.server.pid not in sampler.seen
    assert writer.server.finish(30) == 0
    assert shim.finish() == 0
    keeper = hub_record(world)["pid"]
    assert world.cli("stop").returncode == 0
    assert hub_record(world) == {}
    eventually(lambda: not is_running(keeper), what="the end of the keeper")
    fresh = world.bare()
    fresh.initialize()
    for drawer in writer.stored:
        assert "heron" in fresh.call_tool("get_drawer", drawer_id=drawer)["content"]
    assert fresh.finish(30) == 0


def test_a_keeper_that_nobody_takes_over_from_leaves_nothing() -> None:
    harness.require_engine("newest")
    with World("newest") as world:
        shim = world.shim()
        shim.initialize()
        eventually(lambda: hub_record(world), what="the record of a hub")
        stock = world.bare()
        stock.initialize()
        stock.tools()
        keeper = eventually(
            lambda: pid if (pid := hub_record(world)["pid"]) != world.broker().pid else 0, what="a keeper in the record"
        )
        assert os.getpgid(keeper) != os.getpgid(world.broker().pid)
        assert Path(f"/proc/{keeper}/cwd").resolve() == Path("/")
        shim.kill()
        world.broker().kill()
        assert stock.finish(30) == 0
        eventually(lambda: not is_running(keeper), 30.0, "the end of the keeper")
        assert hub_record(world) == {}


def test_a_server_that_a_kill_made_read_by_itself_is_named_and_never_a_second_writer() -> None:
    harness.require_engine("newest")
    with World("newest", env={"MEMPALACE_BROKER_PARK_S": "1"}) as world:
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", 60.0, wing="w", room="r", content="the first heron")
        eventually(lambda: hub_record(world), what="the record of a hub")
        stock = world.bare()
        stock.initialize()
        stock.tools()
        eventually(lambda: hub_record(world)["pid"] != world.broker().pid, what="a keeper in the record")
        shim.call_tool("kg_stats", 60.0)
        broker, engine = world.broker(), world.broker().engine_pid()
        os.kill(engine, signal.SIGSTOP)
        before = requests(world)
        search = {"name": full_name("search"), "arguments": {"query": "the first heron", "limit": 3}}
        read = stock.start_request("tools/call", search)
        eventually(lambda: requests(world) > before, what="its request")
        broker.kill()  # in the middle of the read: the server, as mempalace made it, reads the palace itself
        kill_pid(engine)
        assert "WITHOUT its shared hub" in str(payload(stock.wait_response(read, 90.0)))
        eventually(lambda: stock.pid in world.owners(), what="a second opener")

        took_s: list[float] = []
        for n in range(3):
            began = time.monotonic()
            assert shim.call_tool("add_drawer", 60.0, wing="w", room="r", content=f"shim {n}")["success"]
            took_s.append(time.monotonic() - began)
            holder = world.broker().status()["engine"]["pid"]
            assert lock_holder(world) == holder
            found = json.loads(world.cli("doctor", "--json", timeout=100.0).stdout)["findings"]
            (row,) = [row for row in found if row["what"] == "foreign opener"]
            assert row["detail"].startswith(f"pid {stock.pid} (mempalace-mcp), running since 20"), row
            assert stock.call_tool("add_drawer", 60.0, wing="w", room="r", content=f"stock {n}")["success"]
            assert lock_holder(world) in (holder, 0)
            eventually(lambda: world.broker().status()["engine"]["state"] == "parked", what="a parked engine")
        slow = [took for took in took_s if took > 8.0]  # the first one, or the second if an engine just started
        assert len(slow) <= 1, f"the engine waits for it once, not before each call: {took_s}"
        assert stock.finish(30) == 0
        assert shim.finish() == 0
        assert world.cli("stop").returncode == 0
        fresh = world.bare()
        fresh.initialize()
        assert fresh.call_tool("list_wings")["wings"] == {"w": 7}
        assert fresh.finish(30) == 0
