"""A command has the palace for itself: no engine beside it, sessions that wait, whoever is killed meanwhile."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mempalace_broker import errors
from mempalace_broker.protocol.write_lock import lock_name
from tests.harness import RpcError, World, engine_python, eventually, kill_pid
from tests.load import Load
from tests.proctools import is_running
from tests.terminal import Terminal

HOLD = "exec 3<> {store}; echo $$ > {up}; while ! [ -e {over} ]; do sleep 0.1 3>&-; done; exit 7"


class Command:
    """A command that has a store open, and ends with 7 when it is told to."""

    def __init__(self, world: World, *options: str, name: str = "c") -> None:
        self.up, self.over = world.root / f"{name}.up", world.root / f"{name}.over"
        store = world.palace / "chroma.sqlite3"
        script = HOLD.format(store=store, up=self.up, over=self.over)
        self.process = subprocess.Popen(
            [world.program("mempalace-broker"), "exclusive", *options, "--", "sh", "-c", script],
            env=world.env,
            cwd=world.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def pid(self) -> int:
        """Of the command itself, once it runs."""
        return eventually(lambda: int(self.up.read_text() or 0) if self.up.exists() else 0, what="the command's start")

    def end(self) -> int:
        self.over.touch()
        self.process.communicate(timeout=60)
        return self.process.returncode


def write_lock_is_free(world: World) -> bool:
    """mempalace's own write lock."""
    with (world.state_root / "locks" / lock_name(os.path.realpath(world.palace))).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def waits_for(world: World) -> str:
    """The process for which the broker's engine waits; at first `exclusive` itself, for it starts the command."""
    return str(world.broker().status()["engine"]["waits_for"])


@pytest.fixture
def idle() -> Iterator[World]:
    """A palace without an engine: what the locks do shows all the same."""
    with World(None, env={"MEMPALACE_BROKER_ENGINE": "/nowhere"}) as world:
        world.palace.mkdir()
        yield world


@pytest.mark.engine
def test_sessions_wait_and_nobody_opens_the_palace_beside_a_command() -> None:
    with World("newest", env={"MEMPALACE_MCP_TIMEOUT_MS": "60000"}) as world:
        shim = world.shim()
        shim.initialize()
        shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits")
        with world.watch_owners() as sampler:
            command = Command(world)
            pid = command.pid()
            assert write_lock_is_free(world)
            waiting = shim.start_call("add_drawer", wing="w", room="r", content="the heron waits for the command")
            shim.request("ping", {})
            assert shim.tools()
            status = world.broker().status()
            assert status["engine"]["state"] == "lent"
            eventually(lambda: f"pid {pid} (sh), since 20" in waits_for(world), what="the command's own number")
            assert status["lease"]["busy"] is True
            assert f"held by a command that has the palace for itself, pid {pid}" in world.cli("doctor").stdout
            second = world.cli("exclusive", "--wait", "0.2", "--", "true")
            assert (second.returncode, f"pid {pid} (sh)" in second.stderr) == (errors.EXIT_HELD, True)
            os.kill(command.process.pid, signal.SIGKILL)  # the command goes on, and so does its lock
            world.broker().kill()
            later = shim.start_call("search", query="heron")
            broker = world.broker()
            eventually(lambda: f"pid {pid} (sh)" in str(broker.status()["engine"]["waits_for"]), what="a new broker")
            command.over.touch()
            assert "result" in shim.wait_response(waiting, 60.0)
            assert "result" in shim.wait_response(later, 60.0)
            eventually(lambda: not is_running(pid), what="the command's end")
            command.process.communicate(timeout=10)
        assert sampler.most == 1, sampler.worst
        found = shim.call_tool("search", query="the heron waits for the command", limit=1)["results"]
        assert found[0]["text"] == "the heron waits for the command"


def test_a_call_names_the_command_and_goes_on_after_it(idle: World) -> None:
    idle.env["MEMPALACE_MCP_TIMEOUT_MS"] = "3000"
    idle.cli("ensure")
    shim = idle.shim()
    shim.initialize()
    command = Command(idle)
    pid = command.pid()
    with pytest.raises(RpcError) as refused:
        shim.call_tool("search", query="heron")
    assert refused.value.code == errors.WAIT_TIMEOUT
    assert f"another process that works on the palace, pid {pid} (sh), since 20" in str(refused.value)
    stopped = idle.cli("stop")
    assert (stopped.returncode, f"pid {pid} (sh)" in stopped.stdout) == (0, True)
    assert command.end() == 7


def test_without_a_broker_none_is_started_and_one_that_starts_waits(idle: World) -> None:
    command = Command(idle)
    pid = command.pid()
    assert idle.brokers() == []
    second = Command(idle, "--wait", "60", name="second")
    idle.cli("ensure")
    broker = idle.broker()
    eventually(lambda: f"pid {pid} (sh)" in str(broker.status()["engine"]["waits_for"]), what="a broker that waits")
    assert not second.up.exists()
    assert command.end() == 7
    second.pid()
    assert second.end() == 7
    idle.cli("stop")
    assert "open" not in idle.cli("take-over").stdout


@pytest.mark.engine
def test_a_command_may_replace_the_whole_folder_as_migrate_does() -> None:
    """engine.lock goes with it; no engine opens the new folder before the command's end, and then one does."""
    with World("newest", env={"MEMPALACE_BROKER_DRAIN_S": "1"}) as world:
        shim = world.shim()
        shim.initialize()
        shim.call_tool("kg_add", subject="heron", predicate="eats", object="fish")
        command = Command(world)
        pid, broker = command.pid(), world.broker()
        world.palace.rename(world.root / "old")
        started = broker.status()["broker"]["uptime_s"]
        waiting = shim.start_call("add_drawer", wing="w", room="r", content="the heron moved")
        eventually(lambda: broker.status()["broker"]["uptime_s"] > started + 3.0, what="several looks of the broker")
        assert not world.palace.exists()
        world.palace.mkdir(mode=0o700)
        eventually(lambda: f"pid {pid} (sh)" in waits_for(world), what="the command's own number")
        assert f"pid {pid} (sh)" in world.cli("exclusive", "--wait", "0", "--", "true").stderr
        broker.kill()
        new = world.cli("ensure")
        assert new.returncode == 0, new.stderr
        eventually(lambda: f"pid {pid} (sh)" in waits_for(world), what="that it waits")
        assert command.end() == 7
        assert "result" in shim.wait_response(waiting, 60.0)


def test_a_stranger_with_the_palace_open_is_named(idle: World) -> None:
    store = idle.palace / "chroma.sqlite3"
    store.touch()
    with store.open("rb"):
        done = idle.cli("exclusive", "--wait", "0.2", "--", "true")
    assert done.returncode == errors.EXIT_HELD
    assert f"pid {os.getpid()}" in done.stderr
    assert idle.cli("exclusive", "--wait", "0.2", "--", "true").returncode == 0


def test_a_command_that_hangs_is_ended_with_all_that_it_started(idle: World) -> None:
    done = idle.cli("exclusive", "--limit", "0.5", "--", "sh", "-c", "sleep 1000 & sleep 1000; true")
    assert done.returncode == errors.EXIT_LIMIT
    assert "--limit" in done.stderr
    assert idle.cli("exclusive", "--wait", "1", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_what_a_command_leaves_running_keeps_the_palace_and_is_named(idle: World) -> None:
    script = "sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!"
    done = idle.cli("exclusive", "--", "sh", "-c", script)
    left = int(done.stdout)
    assert done.returncode == 0
    assert f"pid {left} (sleep), which the command left running, still has the palace" in done.stderr
    assert f"pid {left} (sleep)" in idle.cli("exclusive", "--wait", "0.1", "--", "true").stderr
    kill_pid(left)
    assert idle.cli("exclusive", "--", "true").returncode == 0


def test_a_terminal_and_its_interrupts_are_the_commands(idle: World) -> None:
    script = "trap 'echo caught; exit 5' INT; echo up; read answer; echo got $answer; while :; do sleep 0.1; done"
    terminal = Terminal("mempalace-broker", "exclusive", "--", "sh", "-c", script, env=idle.env, cwd=idle.cwd)
    terminal.sees("up")
    terminal.press(b"heron\n")
    terminal.sees("got heron")
    terminal.press(b"\x03")
    terminal.sees("caught")
    assert terminal.ended() == 5


def test_a_signal_to_us_alone_reaches_the_command(idle: World) -> None:
    command = Command(idle)
    command.pid()
    command.process.terminate()
    command.process.communicate(timeout=30)
    assert command.process.returncode == 128 + signal.SIGTERM


def test_a_command_that_is_not_there_disturbs_nobody(idle: World) -> None:
    assert idle.cli("exclusive", "--", "no-such-command").returncode == errors.EXIT_NO_COMMAND
    (idle.cwd / "plain").write_text("")
    assert idle.cli("exclusive", "--", "./plain").returncode == errors.EXIT_CANNOT_RUN  # as a shell
    assert idle.cli("exclusive").returncode == errors.EXIT_USAGE


def maintenance(world: World) -> list[list[str]]:
    """mempalace's own maintenance; the last two replace the palace's folder."""
    python = engine_python(str(world.engine))
    mempalace = str(python.parent / "mempalace")
    return [
        [mempalace, "sync", str(world.cwd), "--apply"],
        [mempalace, "compress"],
        [str(python), "-m", "mempalace.dedup", "--dry-run"],  # else it removes short diary entries, as it is made to
        [mempalace, "repair", "--yes"],
        [mempalace, "repair", "--mode", "from-sqlite", "--archive-existing", "--yes"],
        [mempalace, "migrate", "--yes"],
    ]


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(1800)
def test_mempalaces_own_maintenance_under_load(world: World) -> None:
    world.env["MEMPALACE_MCP_TIMEOUT_MS"] = "300000"
    with world.watch_owners() as sampler, Load(world, sessions=4, patience=320.0) as load:
        load.wait_writes(20, 300.0)
        for words in maintenance(world):
            done = world.cli("exclusive", "--wait", "120", "--limit", "600", "--", *words, timeout=800)
            assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
            load.wait_writes(12, 300.0)
        assert not [session.unknown for session in load.sessions if session.unknown]
    assert sampler.most == 1, sampler.worst
    load.verify()
