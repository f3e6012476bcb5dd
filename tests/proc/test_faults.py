"""Every part killed, stopped or broken under a real load. After each: nothing acknowledged is lost, nothing is stored
twice, every request is answered once, one owner at every sample, and nothing is left running."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mempalace_broker import errors
from tests.faulty import FaultyEngine
from tests.harness import RpcError, World, eventually, kill_pid
from tests.load import Load
from tests.proctools import is_running

pytestmark = pytest.mark.engine
newest = pytest.mark.parametrize("engine", ["newest"], indirect=True)


@contextmanager
def under_load(world: World, sessions: int = 3, before: int = 12, after: int = 12) -> Iterator[Load]:
    """The block is the fault; around it the load works, and afterwards the palace is checked."""
    with world.watch_owners(0.02) as watch:
        with Load(world, sessions) as load:
            load.wait_writes(before)
            yield load
            load.wait_writes(after)
        load.verify()
    assert watch.most <= 1, f"{watch.most} processes had the palace open at once"


def test_kill_9_of_the_engine(world: World) -> None:
    with under_load(world) as load:
        for _ in range(3):
            kill_pid(world.broker().engine_pid())
            load.wait_writes(3)


def test_kill_9_of_the_broker(world: World) -> None:
    with under_load(world) as load:
        for _ in range(3):
            world.broker().kill()
            load.wait_writes(3)


def test_kill_9_of_broker_and_engine(world: World) -> None:
    with under_load(world) as load:
        for _ in range(2):
            broker = world.broker()
            engine = broker.engine_pid()
            broker.signal(signal.SIGKILL)
            os.kill(engine, signal.SIGKILL)
            load.wait_writes(3)


def test_kill_9_of_shims(world: World) -> None:
    with under_load(world, sessions=4) as load:
        for session in load.sessions[:2]:
            load.forgive(session)
            session.shim.signal(signal.SIGKILL)


@newest
def test_restarts_and_stops_under_load(world: World) -> None:
    with under_load(world) as load:
        for method in ("broker/restart", "broker/stop", "broker/stop"):
            broker = world.broker()
            broker.admin(method, {"mode": "drain", "reason": "test"})
            eventually(lambda pid=broker.pid: not is_running(pid), what="the end of the broker")  # type: ignore[misc]
            load.wait_writes(3)


@newest
def test_stopped_broker_loses_nothing_and_nobody_replaces_it(world: World) -> None:
    world.env["MEMPALACE_MCP_TIMEOUT_MS"] = "4000"
    with under_load(world) as load:
        broker = world.broker()
        eventually(lambda: world.brokers() == [broker.pid], what="one broker, any that lost the race gone")
        broker.stop()
        late = world.shim()
        assert late.initialize(10)["serverInfo"]["name"] == "mempalace"
        assert late.request("ping", timeout=5)["result"] == {}
        with pytest.raises(RpcError) as error:
            late.call_tool("status", 60)
        assert error.value.code == errors.NOT_EXECUTED
        assert world.brokers() == [broker.pid]
        broker.cont()
        load.wait_writes(3)
        assert world.broker().pid == broker.pid


@newest
def test_stopped_engine_is_replaced_when_a_call_runs_too_long(world: World) -> None:
    world.env["MEMPALACE_MCP_TIMEOUT_MS"] = "4000"
    with under_load(world):
        engine = world.broker().engine_pid()
        os.kill(engine, signal.SIGSTOP)
        eventually(lambda: not is_running(engine), what="the end of the stopped engine")


@newest
def test_stopped_shim_does_not_disturb_the_others(world: World) -> None:
    with under_load(world) as load:
        stopped = load.sessions[0].shim
        stopped.stop()
        load.wait_writes(10)
        stopped.cont()


@newest
@pytest.mark.parametrize("fault", ["segv", "exit", "garbage", "hang"])
def test_an_engine_that_fails_on_a_call(world: World, fault: str) -> None:
    world.env["MEMPALACE_MCP_TIMEOUT_MS"] = "5000"
    FaultyEngine(world)
    with under_load(world):
        victim = world.shim()
        victim.initialize()
        with pytest.raises(RpcError) as read_error:
            victim.call_tool("search", 60, query=f"FAULT:{fault}")
        assert read_error.value.code in {errors.ENGINE_DOWN, errors.RUN_TIMEOUT, errors.WAIT_TIMEOUT}
        with pytest.raises(RpcError) as write_error:
            victim.call_tool("diary_write", 60, agent_name="victim", entry=f"FAULT:{fault}")
        assert write_error.value.code in {errors.OUTCOME_UNKNOWN, errors.ENGINE_DOWN, errors.WAIT_TIMEOUT}


@newest
def test_a_flood_on_stderr_is_survived_and_not_kept(world: World) -> None:
    FaultyEngine(world)
    with under_load(world):
        shim = world.shim()
        shim.initialize()
        shim.call_tool("search", 60, query="FAULT:flood")
    assert 0 < world.log().count("engine: flood") < 1000


@newest
def test_an_engine_that_dies_at_its_start_opens_the_circuit_and_a_probe_closes_it(world: World) -> None:
    faulty = FaultyEngine(world)
    faulty.arm("exit-at-start")
    shim = world.shim()
    assert shim.initialize(5)["serverInfo"]["name"] == "mempalace"
    with pytest.raises(RpcError, match="exit code 7") as error:
        shim.call_tool("status", 30)
    assert error.value.code == errors.ENGINE_DOWN

    def opened() -> bool:
        status = world.broker().status()
        return status["engine"]["state"] == "unavailable" and bool(status["degraded"])

    eventually(opened, what="an open circuit, named in the status")
    assert shim.request("ping")["result"] == {}
    faulty.disarm("exit-at-start")
    eventually(lambda: world.broker().status()["engine"]["state"] == "ready", what="the probe")
    assert shim.call_tool("add_drawer", wing="w", room="r", content="after the probe")["success"] is True


@newest
def test_a_broker_that_started_in_the_middle_of_an_upgrade_needs_no_restart_afterwards(world: World) -> None:
    faulty = FaultyEngine(world)
    faulty.arm("no-import")
    shim = world.shim()
    shim.initialize()
    with pytest.raises(RpcError, match="No module named 'chromadb'"):
        shim.call_tool("status", 30)
    faulty.disarm("no-import")
    pid = world.broker().pid

    def stored() -> bool:
        try:
            return shim.call_tool("add_drawer", wing="w", room="r", content="after the upgrade")["success"] is True
        except RpcError:
            return False

    eventually(stored, what="an engine, now that mempalace can be imported")
    assert world.broker().pid == pid


@newest
def test_no_second_engine_while_an_orphan_works(world: World) -> None:
    """I1: the broker is killed while its engine works; the next one waits for that engine."""
    faulty = FaultyEngine(world)
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="before")
    broker = world.broker()
    engine = broker.engine_pid()
    call = shim.start_call("diary_write", agent_name="orphan", entry="written by the orphan FAULT:hold")
    eventually(faulty.held.exists, what="the engine at work")
    with world.watch_owners(0.01) as watch:
        broker.kill()
        other = world.shim()
        other.initialize()
        found = other.start_call("search", query="orphan")
        successor = world.broker()
        assert successor.pid != broker.pid
        assert is_running(engine)
        faulty.release()
        other.wait_response(found, 30)
        eventually(lambda: not is_running(engine), what="the end of the orphan")
    assert watch.most == 1
    told = shim.wait_response(call, 30)
    assert "result" in told, f"the journal proves what the orphan did: {told}"
    entries = other.call_tool("diary_read", agent_name="orphan")["entries"]
    assert len(entries) == 1


@newest
@pytest.mark.parametrize("record", ["missing", "empty", "truncated", "foreign", "reused", "garbage"])
def test_a_bad_record(world: World, record: str) -> None:
    """With the broker alive and with it dead."""
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="kept")
    broker = world.broker()
    path = world.state_root / "broker.json"
    good = path.read_text()

    def spoil() -> None:
        if record == "missing":
            path.unlink()
        else:
            path.write_text(
                {
                    "empty": "",
                    "truncated": good[: len(good) // 2],
                    "foreign": good.replace(broker.record["boot"], "0" * 36),
                    "reused": good.replace(f'"pid": {broker.pid}', f'"pid": {os.getpid()}'),
                    "garbage": "\x00\xff[[[[",
                }[record]
            )

    spoil()
    with world.watch_owners(0.02) as watch:
        other = world.shim()
        other.initialize(10)
        assert "kept" in str(other.call_tool("search", query="kept"))
        assert world.brokers() == [broker.pid]
        broker.kill()
        spoil() if path.exists() or record != "missing" else None
        third = world.shim()
        third.initialize(10)
        assert "kept" in str(third.call_tool("search", query="kept"))
    assert watch.most == 1


@newest
def test_the_name_of_the_socket_is_removed_under_a_live_broker(world: World) -> None:
    with under_load(world):
        broker = world.broker()
        os.unlink(broker.record["endpoints"][0].removeprefix("unix:"))
        late = world.shim()
        late.initialize(15)
        assert late.call_tool("add_drawer", 30, wing="w", room="r", content="late")["success"] is True
        assert world.brokers() == [broker.pid]


def send_until_full(sock: socket.socket, data: bytes) -> None:
    try:
        while True:
            sock.send(data)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return


@newest
def test_a_client_that_does_not_read_is_dropped_and_harms_nobody(world: World) -> None:
    world.env["MEMPALACE_BROKER_CLIENT_STALL_S"] = "1"
    with under_load(world):
        address = world.broker().record["endpoints"][0].removeprefix("unix:")
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(address)
            deaf.setblocking(False)
            send_until_full(deaf, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n' * 500)
            eventually(lambda: "accepted no byte" in world.log(), what="the deaf client to be dropped")


@newest
def test_half_a_line_and_death(world: World) -> None:
    with under_load(world):
        address = world.broker().record["endpoints"][0].removeprefix("unix:")
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as dying:
                dying.connect(address)
                dying.sendall(
                    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"mempalace_diary_write",'
                    b'"arguments":{"agent_name":"half","entry":"never"'  # cut off; whole, it would be executed
                )
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("diary_read", agent_name="half")["entries"] == []


def test_an_engine_whose_broker_dies_while_it_imports_leaves_at_once(world: World) -> None:
    faulty = FaultyEngine(world)
    faulty.arm("slow-import")
    shim = world.shim()
    shim.initialize()
    broker = world.broker()
    engine = eventually(lambda: broker.status()["engine"]["pid"], what="an engine at its start")
    eventually((faulty.folder / "importing").exists, what="the import")
    broker.kill()
    eventually(
        lambda: not world.brokers() and not is_running(engine), what="the orphan's end, long before its import's"
    )


@newest
def test_a_removed_journal_proves_nothing(world: World) -> None:
    """Its file is removed while a write that must not run twice is under way; then the engine dies."""
    faulty = FaultyEngine(world)
    shim = world.shim()
    shim.initialize()
    shim.call_tool("diary_write", agent_name="careful", entry="before")
    broker = world.broker()
    engine = broker.engine_pid()
    call = shim.start_call("diary_write", agent_name="careful", entry="once FAULT:hold")
    eventually(faulty.held.exists, what="the engine at work")
    (world.state_root / "broker.journal").unlink()
    kill_pid(engine)
    error = shim.wait_response(call, 60)["error"]
    assert error["code"] == errors.OUTCOME_UNKNOWN
    entries = shim.call_tool("diary_read", 60, agent_name="careful")["entries"]
    assert sum("once" in entry["content"] for entry in entries) <= 1
    assert shim.call_tool("diary_write", agent_name="careful", entry="after")["success"] is True
    assert (world.state_root / "broker.journal").exists()


@newest
def test_a_removed_owner_lock_makes_the_broker_leave(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="kept through it")
    broker = world.broker()
    with world.watch_owners(0.02) as watch:
        (world.palace / "broker.lock").unlink()
        eventually(lambda: not is_running(broker.pid), what="the broker to leave")
        assert "kept through" in str(shim.call_tool("search", 60, query="kept through it"))
    assert watch.most == 1
    assert "was removed" in world.log()


@newest
def test_the_self_check_goes_on_after_an_error(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    shim.call_tool("kg_stats")
    broker = world.broker()
    record = world.state_root / "broker.json"
    record.unlink()
    record.mkdir()  # it can neither be read nor replaced
    eventually(lambda: "the self-check failed" in str(broker.status()["degraded"]), what="the warning")
    record.rmdir()
    eventually(lambda: world.record() is not None, what="the record to be back")
    assert shim.call_tool("kg_stats", 30) is not None
