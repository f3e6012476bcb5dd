"""The shim's side of the bridge: asked without blocking, started once, and what each answer means."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.errors import BrokerUnavailable, UsageError
from mempalace_broker.route import ssh as module
from mempalace_broker.route.attempt import (
    START_IF_NEEDED,
    WAIT_ONLY,
    Connected,
    Failed,
    StartMode,
    StartPolicy,
    Waiting,
)
from mempalace_broker.route.bridge.files import BridgeFiles
from mempalace_broker.route.bridge.start import bridge_status
from mempalace_broker.route.bridge.wire import SshTarget
from mempalace_broker.route.ssh import SshRoute
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.spawn import StartPipe
from tests.fakes.clock import FakeClock

REPO = Path(__file__).resolve().parents[3]
LIMIT_S = 20.0


class Stage:
    """A target with a folder of its own, and a fake bridge: each connection gets what `says` returns for its word."""

    def __init__(self, folder: Path) -> None:
        self.target = SshTarget("host", user="me", port=2222, config=str(folder / "config"), state_root="/r")
        self.files = BridgeFiles(self.target)
        self.files.folder = str(folder)
        for name, file in (
            ("socket", "bridge.sock"),
            ("lock", "bridge.lock"),
            ("start_lock", "start.lock"),
            ("log", "log"),
        ):
            setattr(self.files, name, str(folder / file))
        self.heard: list[bytes] = []
        self.spawned = 0
        self.clock = Clock()
        self.listener: socket.socket | None = None
        self.peers: list[socket.socket] = []
        self.answer = b'{"state":"ready","started":true}\n'
        self.gives = True

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.files.socket)
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, args=(self.listener,), daemon=True)
        self.thread.start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            ours, theirs = socket.socketpair()
            self.peers += [peer, ours]
            self.heard.append(peer.recv(100))
            with theirs:
                ours.sendall(b"hello from the broker")
                socket.send_fds(peer, [self.answer], [theirs.fileno()] if self.gives else [])

    def spawn(self, *_args: object) -> StartPipe:
        self.spawned += 1
        read, write = os.pipe()
        self.listen()
        os.write(write, b'{"state": "ready"}\n')
        os.close(write)
        return StartPipe(read)

    def route(
        self, *, seconds: float = LIMIT_S, clock: Clock | None = None, mode: StartMode = START_IF_NEEDED
    ) -> SshRoute:
        deadline = Deadline.after(clock or self.clock, seconds)
        return SshRoute(self.target, deadline, StartPolicy(mode), env={}, spawn=self.spawn, files=self.files)

    def reach(self) -> Connected:
        return self.route().run()

    def close(self) -> None:
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.thread.join(LIMIT_S)
            self.listener.close()
        for peer in self.peers:
            peer.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(module, "_held", {})
    folder = tmp_path / "b"
    folder.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    made = Stage(folder)
    yield made
    made.close()
    for sock in module._held.values():
        sock.close()


def heard(found: Connected) -> bytes:
    sock = socket.socket(fileno=found.sock.detach())
    with sock:
        assert not os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())
        sock.settimeout(LIMIT_S)
        return sock.recv(100)


def test_a_bridge_that_is_there_hands_out_a_connection(stage: Stage) -> None:
    stage.listen()
    found = stage.reach()
    assert found.endpoint == "ssh://me@host:2222/r"
    assert found.started
    assert heard(found) == b"hello from the broker"
    assert stage.heard == [b"new\n"]
    assert stage.spawned == 0


def test_who_comes_again_says_so_and_stays_one_user(stage: Stage) -> None:
    stage.listen()
    for _ in range(3):
        stage.reach().sock.close()
    assert stage.heard == [b"new\n", b"again\n", b"again\n"]
    assert len(module._held) == 1
    first, *_ = stage.peers
    first.settimeout(LIMIT_S)
    assert first.recv(1) == b"", "the connection before was closed"


def test_a_bridge_that_is_not_there_is_started_once(stage: Stage) -> None:
    assert heard(stage.reach()) == b"hello from the broker"
    assert stage.spawned == 1
    assert FileLock(stage.files.start_lock).try_acquire(), "nobody holds the start lock"


def test_a_failure_is_told_in_the_bridges_words(stage: Stage) -> None:
    stage.answer, stage.gives = b'{"state":"failed","message":"no way.","hint":"go by foot"}\n', False
    stage.listen()
    with pytest.raises(BrokerUnavailable, match=r"no way\. Hint: go by foot"):
        stage.reach()
    assert not module._held


@pytest.mark.parametrize("answer", [b"gibberish\n", b"[]\n", b'{"state":"ready"}\n'])
def test_nonsense_is_a_failure_too(stage: Stage, answer: bytes) -> None:
    stage.answer, stage.gives = answer, False
    stage.listen()
    with pytest.raises(BrokerUnavailable, match="doctor"):
        stage.reach()


def test_another_client_that_starts_it_is_waited_for(stage: Stage) -> None:
    other = FileLock(stage.files.start_lock)
    assert other.try_acquire()
    route = stage.route()
    waiting = route.step()
    assert isinstance(waiting, Waiting)
    assert waiting.why == "another client starts the bridge"
    assert stage.spawned == 0
    other.release()
    route.run().sock.close()
    assert stage.spawned == 1


def test_a_bridge_that_owns_its_folder_is_not_started_twice(stage: Stage) -> None:
    owner = FileLock(stage.files.lock)
    assert owner.try_acquire()
    route = stage.route()
    waiting = route.step()
    assert isinstance(waiting, Waiting)
    assert "does not listen yet" in waiting.why
    assert stage.spawned == 0
    owner.release()
    route.close()


def test_the_deadline_ends_it_with_the_reason(stage: Stage) -> None:
    clock = FakeClock()
    other = FileLock(stage.files.start_lock)
    assert other.try_acquire()
    route = stage.route(seconds=5, clock=clock)
    for _ in range(1000):
        step = route.step()
        if isinstance(step, Failed):
            break
        assert isinstance(step, Waiting)
        clock.sleep(max(step.seconds, 0.01))
    assert isinstance(step, Failed)
    assert "another client starts the bridge" in step.error.message
    assert stage.files.log in step.error.hint
    other.release()


def test_a_single_look_does_not_open_a_bridge(stage: Stage) -> None:
    step = stage.route(mode=WAIT_ONLY).step()
    assert isinstance(step, Failed)
    assert "no bridge to" in step.error.message
    assert stage.spawned == 0
    stage.listen()
    stage.route(mode=WAIT_ONLY).run().sock.close()


def test_a_folder_of_somebody_else_is_not_trusted(stage: Stage) -> None:
    Path(stage.files.folder).chmod(0o777)
    step = stage.route().step()
    assert isinstance(step, Failed)
    assert "only you can use" in step.error.message


def test_targets_have_folders_of_their_own() -> None:
    targets = [
        SshTarget("a"),
        SshTarget("b"),
        SshTarget("a", user="u"),
        SshTarget("a", port=2),
        SshTarget("a", config="/c"),
        SshTarget("a", state_root="/r"),
        SshTarget("a", command="/m"),
    ]
    assert len({BridgeFiles(target).folder for target in targets}) == len(targets)
    assert BridgeFiles(SshTarget("a")).folder == BridgeFiles(SshTarget("a")).folder
    assert all(len(BridgeFiles(target).socket) < 80 for target in targets), "ssh adds 17 to a control socket's name"


@pytest.mark.parametrize(("host", "user"), [("", ""), ("-oProxyCommand=id", ""), ("a", "-l")])
def test_a_host_is_never_an_option(host: str, user: str) -> None:
    with pytest.raises(UsageError):
        SshTarget(host, user=user)


def test_a_configuration_is_the_same_file_for_agents_of_all_folders() -> None:
    with pytest.raises(UsageError, match="absolute"):
        SshTarget("a", config="ssh_config")


def test_the_status_of_no_bridge_is_none() -> None:
    assert bridge_status(BridgeFiles(SshTarget("nobody-has-been-there")), Deadline.after(Clock(), 1)) == {}


def test_the_way_over_a_bridge_that_is_there_imports_little(stage: Stage) -> None:
    from tests.unit.shim.test_import_budget import FORBIDDEN

    stage.listen()
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from mempalace_broker.route.attempt import Connected, StartPolicy
from mempalace_broker.route.bridge.files import BridgeFiles
from mempalace_broker.route.bridge.wire import SshTarget
from mempalace_broker.route.ssh import SshRoute
from mempalace_broker.system.clock import Clock, Deadline
files = BridgeFiles(SshTarget("host"))
files.folder, files.socket = sys.argv[2], sys.argv[2] + "/bridge.sock"
route = SshRoute(SshTarget("host"), Deadline.after(Clock(), 20), StartPolicy(), env={}, files=files)
while not isinstance(step := route.step(), Connected):
    assert not hasattr(step, "error"), step.error
assert step.sock.recv(5) == b"hello"
print(*sorted(sys.modules))
"""
    argv = [sys.executable, "-S", "-E", "-c", code, str(REPO / "src"), stage.files.folder]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not FORBIDDEN & set(done.stdout.split())
