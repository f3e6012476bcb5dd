"""From a palace to a connected socket, with real locks, sockets and processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import BrokerUnavailable, StartFailed, StateRootError, UsageError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import DiscoveryRecord, encode
from mempalace_broker.route import dial as dial_module
from mempalace_broker.route.attempt import (
    ONCE,
    START_IF_NEEDED,
    WAIT_ONLY,
    Connected,
    Failed,
    StartMode,
    StartPolicy,
    Waiting,
)
from mempalace_broker.route.dial import Dialled
from mempalace_broker.route.machine.election import CONNECT_DENIED
from mempalace_broker.route.start_under_lock import START_LIMIT_S
from mempalace_broker.route.unix import UnixRoute
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.lock import FileLock, is_held
from mempalace_broker.system.paths import Context, StateFiles, state_files
from mempalace_broker.system.private import VARIABLE
from mempalace_broker.system.process_ids import DEAD, ZOMBIE, ProcessId, process_of, process_state
from mempalace_broker.system.spawn import StartPipe, spawn_detached
from tests.fakes import daemon
from tests.fakes.clock import FakeClock
from tests.proctools import eventually, own_descriptors

REPO = str(Path(__file__).resolve().parents[3])
HERD = """
import os, sys
from mempalace_broker.system.clock import Clock, Deadline
from tests.unit.route.test_unix import Stage, connect
stage, n = Stage(sys.argv[1]), int(sys.argv[2])
gate, release = os.pipe()
for _ in range(n):
    if os.fork() == 0:
        os.close(release)
        os.read(gate, 1)
        found = connect(stage.identity, Deadline.after(Clock(), 60), env=stage.env, spawn=stage.spawn("serve"))
        found.sock.setblocking(True)
        os.write(1, found.sock.recv(100))
        os._exit(0)
os.close(release)
codes = {os.wait()[1] for _ in range(n)}
sys.exit(codes != {0})
"""
CHURN = """
import os, sys, time
from mempalace_broker.system.clock import Clock, Deadline
from tests.unit.route.test_unix import Stage, connect
stage, clients, rounds = Stage(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for _ in range(clients):
    if os.fork() == 0:
        for _ in range(rounds):
            connect(stage.identity, Deadline.after(Clock(), 60), env=stage.env, spawn=stage.spawn("serve")).sock.close()
        os._exit(0)
codes = {os.wait()[1] for _ in range(clients)}
sys.exit(codes != {0})
"""
KILLS = 8


def connect(
    identity: PalaceIdentity,
    deadline: Deadline,
    env: Mapping[str, str],
    *,
    spawn: Callable[..., StartPipe],
    mode: StartMode = START_IF_NEEDED,
) -> Connected:
    """Run a route to its end."""
    policy = StartPolicy(mode, heed_failures=False)
    return UnixRoute(Context(identity, env), deadline, policy, spawn=spawn).run()


def script(code: str, *args: str) -> subprocess.Popen[bytes]:
    """Run one of the above."""
    path = os.pathsep.join([REPO, f"{REPO}/src"])
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class Stage:
    """A palace in a directory, and daemons that can be started for it."""

    def __init__(self, root: str) -> None:
        self.identity = PalaceIdentity(f"{root}/palace", f"{root}/palace/knowledge_graph.sqlite3", "flag")
        self.env = {VARIABLE: f"{root}/private"}
        self.files: StateFiles = state_files(self.identity, self.env)
        self.spawned = 0

    def spawn(self, behaviour: str) -> Any:
        """For UnixRoute(spawn=...)."""

        def start(context: Context, *, started_by: str) -> StartPipe:
            self.spawned += 1
            files = context.files
            assert files.private.make() == ""
            argv = [sys.executable, "-m", "tests.fakes.daemon", behaviour, files.root, files.palace]
            path = os.pathsep.join([REPO, f"{REPO}/src"])
            return spawn_detached(
                argv, env={"PYTHONPATH": path, daemon.STARTED_BY: started_by}, cwd="/", log_path=files.log
            )

        return start

    def route(
        self,
        behaviour: str = "serve",
        *,
        seconds: float = 30,
        env: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        mode: StartMode = START_IF_NEEDED,
        heed_failures: bool = True,
        rng: Callable[[], float] | None = None,
    ) -> UnixRoute:
        deadline = Deadline.after(clock or Clock(), seconds)
        policy = StartPolicy(mode, heed_failures=heed_failures)
        context = Context(self.identity, {**self.env, **(env or {})})
        return UnixRoute(context, deadline, policy, spawn=self.spawn(behaviour), rng=rng)

    def reach(self, behaviour: str = "serve", **options: Any) -> Connected:
        """Connect for real, blocking."""
        options["env"] = {**self.env, **options.get("env", {})}
        return connect(self.identity, Deadline.after(Clock(), 30), spawn=self.spawn(behaviour), **options)

    def pids(self, name: str = daemon.PIDS) -> list[int]:
        try:
            with open(os.path.join(self.files.root, name), encoding="ascii") as file:
                return [int(line) for line in file]
        except FileNotFoundError:
            return []


def await_end(who: ProcessId) -> None:
    """A zombie holds nothing any more; init reaps it some time later."""
    eventually(lambda: process_state(who) in (DEAD, ZOMBIE) or None, what=f"end of {who}")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(os.path.realpath(tmp_path))
    yield made
    eventually(lambda: len(made.pids()) >= made.spawned or None, what="the note of every daemon")
    for who in [process_of(pid) for pid in made.pids()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(who.pid, signal.SIGKILL)
        await_end(who)


def run(route: UnixRoute, clock: FakeClock) -> Connected | Failed:
    """Step through simulated time to the end; pipes are waited for in real time."""
    while True:
        found = route.step()
        if not isinstance(found, Waiting):
            return found
        assert found.why
        assert 0 <= found.seconds <= 30
        if found.fd < 0:
            clock.move(max(found.seconds, 1e-6))
        else:
            Clock().sleep(0.01)


def failure(found: Connected | Waiting | Failed) -> str:
    assert isinstance(found, Failed), found
    return str(found.error)


def listening(path: str, backlog: int = 64) -> socket.socket:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(backlog)
    return listener


def record_of(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "record": "ab",
        "pid": 77,
        "endpoints": ["unix:/nowhere/b.sock"],
        "palace": {"path": "/p"},
    }
    return encode(DiscoveryRecord(**{**fields, **changes}))


class TestFinding:
    def test_by_the_socket_name_without_a_record(self, stage: Stage) -> None:
        with listening(stage.files.socket):
            found = stage.route().step()
        assert isinstance(found, Connected)
        found.sock.close()
        assert (stage.spawned, found.started, found.endpoint) == (0, False, stage.files.socket)

    def test_the_record_comes_first(self, stage: Stage, tmp_path: Path) -> None:
        elsewhere = str(tmp_path / "elsewhere.sock")
        with listening(stage.files.socket), listening(elsewhere):
            Path(stage.files.record).write_bytes(record_of(endpoints=["tcp://h:1", f"unix:{elsewhere}"]))
            found = stage.route().step()
        assert isinstance(found, Connected)
        found.sock.close()
        assert found.endpoint == elsewhere

    def test_a_stale_record_does_not_hide_a_living_socket(self, stage: Stage) -> None:
        with listening(stage.files.socket):
            Path(stage.files.record).write_bytes(record_of())
            found = stage.route().step()
        assert isinstance(found, Connected)
        found.sock.close()

    def test_another_state_root_of_the_same_palace(self, stage: Stage, tmp_path: Path) -> None:
        """One agent has $MEMPALACE_PATH, another not: one palace, one broker."""
        first = stage.reach()
        env = {"MEMPALACE_PATH": str(tmp_path / "other")}
        second = stage.reach(env=env)
        assert (second.endpoint, second.started) == (first.endpoint, False)
        first.sock.close()
        second.sock.close()
        assert not (tmp_path / "other").exists()


class TestStarting:
    def test_cold(self, stage: Stage) -> None:
        first = stage.reach()
        second = stage.reach()
        assert (first.started, second.started, stage.spawned) == (True, False, 1)
        assert first.sock.fileno() >= 0
        assert is_held(stage.files.start_lock) is False
        assert is_held(stage.files.owner_lock) is True
        first.sock.close()
        second.sock.close()

    def test_after_kill_9_of_the_broker(self, stage: Stage) -> None:
        stage.reach().sock.close()
        [pid] = stage.pids()
        who = process_of(pid)
        os.kill(pid, signal.SIGKILL)
        await_end(who)
        found = stage.reach()
        found.sock.close()
        assert (found.started, stage.spawned) == (True, 2)

    def test_a_hundred_at_once_on_a_cold_root(self, stage: Stage) -> None:
        with script(HERD, stage.files.root, "100") as herd:
            out, err = herd.communicate(timeout=100)
        assert herd.returncode == 0, err.decode()[-2000:]
        answers = out.decode().split()
        assert len(answers) == 100
        assert len(set(answers)) == 1, "one broker for all"
        assert len(stage.pids(daemon.SERVES)) == 1
        assert len(stage.pids()) == 1, "and no other was even tried"

    def busy_one(self, stage: Stage, churn: subprocess.Popen[bytes], count: int) -> int:
        """Pid of the `count`th broker that got to work, 0 while there is none, -1 when the clients are done."""
        if churn.poll() is not None:
            return -1
        return next(iter(stage.pids(daemon.BUSY)[count - 1 :]), 0)

    def test_kill_9_of_the_broker_again_and_again(self, stage: Stage) -> None:
        """No client fails, however often its broker is killed, and none is started beside a living one.

        Killed while it serves: one that dies three times at its start for the same client is given up, see below.
        """
        with script(CHURN, stage.files.root, "6", "400") as churn:
            for count in range(1, KILLS + 1):
                pid = eventually(partial(self.busy_one, stage, churn, count), what="a broker at work")
                if pid < 0:
                    break
                os.kill(pid, signal.SIGKILL)
            _, err = churn.communicate(timeout=100)
        assert churn.returncode == 0, err.decode()[-2000:]
        assert len(stage.pids(daemon.SERVES)) <= KILLS + 1

    @pytest.mark.parametrize(
        ("behaviour", "words"),
        [
            ("fail", r"could not start: the palace is on fire.*Hint: put it out"),
            ("die", r"ended before it could serve.*out of memory"),
            ("garbage", r"is invalid.*Segmentation fault"),
            ("flash", r"comes up and is gone at once"),
        ],
    )
    def test_a_start_that_fails_says_why(self, stage: Stage, behaviour: str, words: str) -> None:
        with pytest.raises(StartFailed, match=words):
            stage.reach(behaviour)
        assert is_held(stage.files.start_lock) is False
        tries = {"fail": 1, "garbage": 1, "die": 3, "flash": 3}
        assert stage.spawned == tries[behaviour], "its own word is final, a sudden end is not"

    def test_one_that_is_killed_while_it_starts_is_started_again(self, stage: Stage) -> None:
        clock = FakeClock()
        route = stage.route("mute", clock=clock)
        assert isinstance(route.step(), Waiting)
        [mute] = eventually(stage.pids, what="the daemon's note")
        route._spawn = stage.spawn("serve")
        os.kill(mute, signal.SIGKILL)
        found = run(route, clock)
        assert isinstance(found, Connected)
        found.sock.close()
        assert (found.started, stage.spawned) == (True, 2)

    def test_its_failure_counts_for_those_who_waited_but_not_for_long(self, stage: Stage) -> None:
        clock = FakeClock()
        assert "on fire" in failure(run(stage.route("fail", clock=clock), clock))
        assert "on fire" in failure(run(stage.route("serve", clock=clock), clock))
        assert stage.spawned == 1, "the second did not even try"
        assert "is invalid" in failure(run(stage.route("garbage", clock=clock, heed_failures=False), clock))
        assert stage.spawned == 2, "a person who just mended it need not wait"
        clock.move(3.1)
        found = run(stage.route("serve", clock=clock), clock)
        assert isinstance(found, Connected)
        found.sock.close()

    def test_one_that_never_reports_is_given_up(self, stage: Stage) -> None:
        clock = FakeClock()
        route = stage.route("mute", clock=clock, seconds=1000)
        waiting = route.step()
        assert isinstance(waiting, Waiting)
        assert waiting.fd >= 0
        assert is_held(stage.files.start_lock) is True
        clock.move(START_LIMIT_S + 1)
        assert "did not report" in failure(route.step())
        assert is_held(stage.files.start_lock) is False

    def test_a_short_deadline_is_not_a_failure_of_the_broker(self, stage: Stage) -> None:
        clock = FakeClock()
        route = stage.route("mute", clock=clock, seconds=2)
        assert isinstance(route.step(), Waiting)
        clock.move(2)
        assert "a broker is starting" in failure(route.step())
        found = stage.reach()
        found.sock.close()
        assert found.started, "and nobody is told that starting is in vain"

    def test_a_lost_race_means_dial_again(self, stage: Stage) -> None:
        clock = FakeClock()
        route = stage.route("lost_race", clock=clock)
        while route.why != "another broker won the palace and does not listen yet":
            assert isinstance(route.step(), Waiting)
        with listening(stage.files.socket):
            clock.move(1)
            found = route.step()
        assert isinstance(found, Connected)
        found.sock.close()
        assert stage.spawned == 1

    def test_a_leftover_socket_is_not_a_broker(self, stage: Stage) -> None:
        listening(stage.files.socket).close()
        found = stage.reach()
        found.sock.close()
        assert found.started

    def test_a_root_that_can_not_be_made(self, stage: Stage) -> None:
        Path(stage.identity.path).touch()
        with pytest.raises(StateRootError, match="cannot create"):
            stage.reach()

    def test_a_starter_that_is_killed_leaves_no_lock(self, stage: Stage) -> None:
        route = stage.route("mute")
        assert isinstance(route.step(), Waiting)
        [mute] = eventually(stage.pids, what="the daemon's note")
        route.close()  # as the kernel does for a killed broker
        assert is_held(stage.files.start_lock) is False
        assert process_state(process_of(mute)) == "alive"
        found = stage.reach()
        found.sock.close()
        assert found.started


class TestWaiting:
    def test_the_loser_of_the_start_lock_polls_with_growing_pauses(self, stage: Stage) -> None:
        stage.files.prepare()
        other = FileLock(stage.files.start_lock)
        assert other.try_acquire()
        other.write_body(b"4711")
        clock = FakeClock()
        route = stage.route(clock=clock, rng=lambda: 0.999999)
        pauses = []
        for _ in range(7):
            waiting = route.step()
            assert isinstance(waiting, Waiting)
            assert "another client (pid 4711) is starting" in waiting.why
            pauses.append(round(waiting.seconds, 3))
            clock.move(waiting.seconds)
        assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2]
        assert stage.spawned == 0
        with listening(stage.files.socket):
            found = route.step()
        assert isinstance(found, Connected)
        found.sock.close()
        other.release()

    def test_called_too_early_it_only_says_how_long_still(self, stage: Stage) -> None:
        stage.files.prepare()
        other = FileLock(stage.files.start_lock)
        assert other.try_acquire()
        clock = FakeClock()
        route = stage.route(clock=clock)
        first = route.step()
        assert isinstance(first, Waiting)
        clock.move(first.seconds / 2)
        second = route.step()
        assert isinstance(second, Waiting)
        assert second.seconds == pytest.approx(first.seconds / 2)
        other.release()

    def test_an_owner_without_a_listener_is_waited_for(self, stage: Stage) -> None:
        """It starts, or leaves, or its name was removed: a second one could only lose."""
        stage.files.prepare()
        owner = FileLock(stage.files.owner_lock)
        assert owner.try_acquire()
        owner.write_body(b'{"pid": 4712}')
        clock = FakeClock()
        route = stage.route(clock=clock, seconds=5)
        assert "a broker (pid 4712) owns the palace but does not listen" in failure(run(route, clock))
        assert stage.spawned == 0
        assert is_held(stage.files.start_lock) is False
        owner.release()

    def test_a_stopped_broker_is_neither_replaced_nor_unlinked(self, stage: Stage) -> None:
        stage.reach().sock.close()
        [pid] = stage.pids()
        before = os.lstat(stage.files.socket).st_ino
        os.kill(pid, signal.SIGSTOP)
        found = stage.reach()
        found.sock.close()
        assert (found.started, stage.spawned) == (False, 1)
        assert os.lstat(stage.files.socket).st_ino == before

    def test_a_full_backlog_is_an_owner(self, stage: Stage) -> None:
        clock = FakeClock()
        with listening(stage.files.socket, backlog=0), contextlib.ExitStack() as stack:
            while True:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                try:
                    sock.connect(stage.files.socket)
                except BlockingIOError:
                    break
            text = failure(run(stage.route(clock=clock, seconds=3), clock))
        assert "owns this socket but does not accept" in text
        assert stage.spawned == 0
        assert not os.path.exists(stage.files.start_lock), "not even the lock was touched"
        assert os.path.exists(stage.files.socket)

    def test_at_least_one_look_even_if_the_deadline_is_over(self, stage: Stage) -> None:
        with listening(stage.files.socket):
            found = stage.route(seconds=0).step()
        assert isinstance(found, Connected)
        found.sock.close()


class TestRefusals:
    def test_a_record_of_another_kernel(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mempalace_broker.locality.mounts.is_local", lambda path: False)
        os.makedirs(stage.files.root, exist_ok=True)
        Path(stage.files.record).write_bytes(record_of(boot="other", host="mac.local", pidns=""))
        text = failure(stage.route().step())
        assert "another machine or virtual machine" in text
        assert f"remove {stage.files.record}" in text
        assert os.listdir(stage.files.root) == ["broker.json"], "nothing was made, locked or removed"

    def test_a_record_of_an_earlier_boot_does_not_stop_anybody(self, stage: Stage) -> None:
        os.makedirs(stage.files.root, exist_ok=True)
        Path(stage.files.record).write_bytes(record_of(boot="earlier", host=os.uname().nodename, pidns="pid:[1]"))
        found = stage.reach()
        found.sock.close()
        assert found.started

    @pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1, "pid": -1}', b"\xff" * 100])
    def test_a_broken_record_does_not_stop_anybody(self, stage: Stage, content: bytes) -> None:
        os.makedirs(stage.files.root, exist_ok=True)
        Path(stage.files.record).write_bytes(content)
        found = stage.reach()
        found.sock.close()
        assert found.started

    def test_a_socket_that_is_not_for_us(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dial_module, "dial", lambda path: Dialled(CONNECT_DENIED, path, None, "Permission denied"))
        text = failure(stage.route().step())
        assert "Permission denied" in text
        assert "owner of the palace" in text
        assert stage.spawned == 0

    def test_failed_stays_failed(self, stage: Stage) -> None:
        route = stage.route(mode=ONCE)
        first = failure(route.step())
        with listening(stage.files.socket):
            assert failure(route.step()) == first


class TestModes:
    def test_the_variable_is_binding(self, stage: Stage, tmp_path: Path) -> None:
        other = str(tmp_path / "o.sock")
        with listening(stage.files.socket), listening(other):
            for value in (f"unix:{other}", other, f"unix://{other}", f" {other} "):
                found = stage.route(env={"MEMPALACE_BROKER": value}).step()
                assert isinstance(found, Connected)
                found.sock.close()
                assert found.endpoint == other

    def test_where_it_leads_nowhere_nothing_else_is_tried(self, stage: Stage) -> None:
        clock = FakeClock()
        env = {"MEMPALACE_BROKER": "/nowhere/b.sock"}
        with listening(stage.files.socket):
            text = failure(run(stage.route(env=env, clock=clock, seconds=2), clock))
        assert "$MEMPALACE_BROKER names /nowhere/b.sock, where nobody answers" in text
        assert "unset MEMPALACE_BROKER" in text
        assert stage.spawned == 0

    @pytest.mark.parametrize("value", ["tcp:h:1", "ssh://", "http://x", "unix:", "unix://host/p", "/" + "x" * 120])
    def test_what_it_may_not_be(self, stage: Stage, value: str) -> None:
        found = stage.route(env={"MEMPALACE_BROKER": value}).step()
        assert isinstance(found, Failed)
        assert isinstance(found.error, UsageError)

    def test_no_spawn(self, stage: Stage) -> None:
        clock = FakeClock()
        env = {"MEMPALACE_BROKER_NO_SPAWN": "1"}
        text = failure(run(stage.route(env=env, clock=clock, seconds=2), clock))
        assert "nobody listens" in text
        assert "MEMPALACE_BROKER_NO_SPAWN=0 lets one start here" in text
        assert clock.now >= 1002
        assert (stage.spawned, os.listdir(stage.files.root)) == (0, [])

    def test_no_spawn_0_is_not_set(self, stage: Stage) -> None:
        stage.reach(env={"MEMPALACE_BROKER_NO_SPAWN": "0"}).sock.close()
        assert stage.spawned == 1

    def test_wait_only_finds_one_that_comes_later(self, stage: Stage) -> None:
        clock = FakeClock()
        route = stage.route(clock=clock, mode=WAIT_ONLY)
        assert isinstance(route.step(), Waiting)
        clock.move(1)
        with listening(stage.files.socket):
            found = route.step()
        assert isinstance(found, Connected)
        found.sock.close()

    def test_once_looks_once(self, stage: Stage) -> None:
        text = failure(stage.route(mode=ONCE).step())
        assert "mempalace-broker ensure" in text
        with pytest.raises(BrokerUnavailable):
            stage.reach(mode=ONCE)
        assert (stage.spawned, os.listdir(stage.files.root)) == (0, [])


def test_no_descriptor_is_left_behind(stage: Stage) -> None:
    before = own_descriptors()
    route = stage.route("mute")
    assert isinstance(route.step(), Waiting)
    route.close()
    stage.reach().sock.close()
    with pytest.raises(BrokerUnavailable):
        stage.reach(mode=ONCE, env={"MEMPALACE_BROKER": "/nowhere/x"})
    eventually(lambda: own_descriptors() <= before, what="the end of every descriptor of ours")


@pytest.mark.parametrize("stale", [False, True])
def test_a_broker_that_serves_while_ours_is_silent_is_taken(stage: Stage, stale: bool) -> None:
    # its starter was killed before it served, and the start lock was free again for us
    if stale:
        os.makedirs(stage.files.root, exist_ok=True)
        Path(stage.files.record).write_bytes(record_of())
    route = stage.route("mute")
    waiting = route.step()
    assert isinstance(waiting, Waiting)
    assert waiting.fd >= 0
    assert waiting.seconds <= 0.1
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(stage.files.socket)
        listener.listen(1)
        assert isinstance(route.step(), Waiting), "its record comes right after; it says whose broker that is"
        palace: dict[str, str | None] = {"path": stage.files.palace, "graph": ""}
        endpoint = f"unix:{stage.files.socket}"
        record = DiscoveryRecord(
            record="ab" * 16, pid=os.getpid(), endpoints=[endpoint], palace=palace, started_by="another"
        )
        Path(stage.files.record).write_bytes(encode(record))
        found = route.step()
        assert isinstance(found, Connected)
        assert found.started is False
        found.sock.close()
    assert is_held(stage.files.start_lock) is False
