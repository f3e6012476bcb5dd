"""The rehearsal for macOS: each difference as a process meets it, with the code for macOS and without.

The tests with "as it is" show that the difference is there and harms; so each of the others fails without its mend.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mempalace_broker.errors import EXIT_FAILURE
from mempalace_broker.system import kernel
from mempalace_broker.system.kernel import process_status
from mempalace_broker.system.lock import FileLock
from tests.fakes.fake_broker import FakeBroker, environment
from tests.proctools import eventually
from tests.rehearsal import as_on_macos, compiled, program

SHIM = "from mempalace_broker.shim.main import entry; entry()"
ENGINE = """
import os
from mempalace_broker.engine.pipes import BrokerPipes
BrokerPipes(int(sys.argv[1]), 1).exit_if_abandoned()
"""
DIAL = "from mempalace_broker.cli.dial_stdio import join; join(int(sys.argv[1]), 0, 1)"
PATIENCE_S = 20.0
UNTIL_STUCK_S = 1.0  # without the mend nothing happens for ever
MENDED = pytest.mark.parametrize("mended", [True, False], ids=["mended", "as it is"])
KIND = pytest.mark.parametrize("kind", ["pipe", "socket"])
ANSWERS, SIZE = 12, 40_000  # each is more than such a buffer takes


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("rehearsal"))


class Agent:
    """Starts a program with pipes or, as Node does, socket pairs for stdin and stdout; `stdin`, `stdout` are ours."""

    def __init__(self, kind: str, argv: list[str], env: dict[str, str], *, pass_fds: tuple[int, ...] = ()) -> None:
        theirs_in, self.stdin = os.pipe() if kind == "pipe" else pair()
        self.stdout, theirs_out = os.pipe() if kind == "pipe" else pair()
        if kind == "pipe":
            kernel.widen_pipe(theirs_out, 16384)
        self.process = subprocess.Popen(
            argv, stdin=theirs_in, stdout=theirs_out, stderr=subprocess.PIPE, env=env, pass_fds=pass_fds
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in {self.stdin, self.stdout} - {-1}:
            os.close(fd)
        self.process.kill()
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        self.process.stderr.close()
        self.process.wait()
        assert "Traceback" not in said, said

    def say(self, id_: int, text: str) -> None:
        call = {"name": "mempalace_search", "arguments": {"text": text}}
        os.write(self.stdin, json.dumps({"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": call}).encode())
        os.write(self.stdin, b"\n")

    def hear(self, count: int) -> list[str]:
        """The first `count` lines."""
        said = b""
        while said.count(b"\n") < count:
            assert select.select([self.stdout], [], [], PATIENCE_S)[0]
            said += os.read(self.stdout, 1 << 16)
        return said.decode().splitlines()

    def leave(self) -> None:
        """Read no more; stdin stays open."""
        os.close(self.stdout)
        self.stdout = -1

    def ends(self, seconds: float) -> int | None:
        """The exit code, None if it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def pair() -> tuple[int, int]:
    one, other = socket.socketpair()
    for end in (one, other):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    return one.detach(), other.detach()


@pytest.fixture
def env(folder: Path, library: Path) -> dict[str, str]:
    return environment(folder, **as_on_macos(library, "send poll connect descriptors"))


@pytest.mark.parametrize(("kind", "mended"), [("pipe", True), ("socket", True), ("socket", False)])
def test_a_shim_whose_agent_does_not_read_goes_on_listening(
    folder: Path, broker: FakeBroker, env: dict[str, str], kind: str, mended: bool
) -> None:
    """An agent that writes all its calls before it reads, as a synchronous client does."""
    with Agent(kind, program(SHIM, mended=mended), env) as agent:
        agent.say(0, "the first")
        agent.hear(1)
        for number in range(ANSWERS if mended else 1):
            agent.say(number, "x" * SIZE)
        if not mended:
            broker.wait_for("tools/call", 2)
            assert_stuck(agent)
            return
        broker.wait_for("tools/call", ANSWERS + 1)
        heard = [json.loads(line) for line in agent.hear(ANSWERS)]
        assert sorted(answer["id"] for answer in heard) == list(range(ANSWERS))
        assert all(len(str(answer)) > SIZE for answer in heard)


def assert_stuck(agent: Agent) -> None:
    """It takes no more than fits into the buffer of its stdin."""
    os.set_blocking(agent.stdin, False)
    line = b"\n" * SIZE

    def full() -> bool:
        try:
            os.write(agent.stdin, line)
        except BlockingIOError:
            return not select.select([], [agent.stdin], [], UNTIL_STUCK_S)[1]
        return False

    assert eventually(full)


@KIND
@MENDED
def test_a_shim_notices_that_nobody_reads_its_answers(
    broker: FakeBroker, env: dict[str, str], kind: str, mended: bool
) -> None:
    with Agent(kind, program(SHIM, mended=mended), env) as agent:
        agent.say(1, "one call, and its answer")
        agent.hear(1)
        agent.leave()
        assert agent.ends(PATIENCE_S if mended else UNTIL_STUCK_S) == (EXIT_FAILURE if mended else None)


@MENDED
@pytest.mark.parametrize("unread", [b"", b"a call that nobody reads"], ids=["idle", "with a call"])
def test_an_engine_that_still_starts_notices_that_its_broker_is_gone(
    env: dict[str, str], mended: bool, unread: bytes
) -> None:
    read, write = os.pipe()
    argv = program("print(flush=True)\n" + ENGINE, str(read), mended=mended)
    with Agent("pipe", argv, env, pass_fds=(read,)) as engine:
        os.close(read)
        if unread:
            os.write(write, unread)
        engine.hear(1)
        assert engine.ends(0.1) is None
        os.close(write)
        assert engine.ends(PATIENCE_S if mended else UNTIL_STUCK_S) == (0 if mended else None)


@KIND
@MENDED
def test_dial_stdio_notices_that_nobody_reads_its_stdout(env: dict[str, str], kind: str, mended: bool) -> None:
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(sock)) for sock in socket.socketpair())
        argv = program(DIAL, str(theirs.fileno()), mended=mended)
        agent = stack.enter_context(Agent(kind, argv, env, pass_fds=(theirs.fileno(),)))
        agent.hear(1)
        ours.sendall(b"an answer\n")
        assert agent.hear(1) == ["an answer"]
        agent.leave()
        assert agent.ends(PATIENCE_S if mended else UNTIL_STUCK_S) == (0 if mended else None)


ROUTE = """
from mempalace_broker.errors import BrokerUnavailable
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route.unix import UnixRoute
from mempalace_broker.system import lock
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.paths import Context
def spawn(*_, **__):
    print("one more broker", flush=True)
    os._exit(0)
if not mended:
    lock.is_held = lambda path: False
palace = sys.argv[1]
route = UnixRoute(Context(PalaceIdentity(palace, palace + "/g", "flag"), {}), Deadline.after(Clock(), 1), spawn=spawn)
try:
    route.run()
except BrokerUnavailable as exc:
    print(exc)
"""


@MENDED
def test_a_backlog_that_is_full_makes_nobody_start_another_broker(
    folder: Path, env: dict[str, str], mended: bool
) -> None:
    """A broker that is stopped: macOS says of it what it says of one that is gone; its lock says the truth."""
    palace = folder.resolve() / "palace"
    palace.mkdir(mode=0o700)
    owner = FileLock(str(palace / "broker.lock"))
    assert owner.try_acquire()
    with ExitStack() as stack:
        stack.callback(owner.release)
        listener = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        listener.bind(str(folder / "broker.sock"))
        listener.listen(0)
        fill(stack, str(folder / "broker.sock"))
        done = subprocess.run(
            program(ROUTE, str(palace), mended=mended), env=env, capture_output=True, text=True, check=False
        )
    said = "does not listen yet, or no longer" if mended else "one more broker"
    assert said in done.stdout, done


def fill(stack: ExitStack, path: str) -> None:
    for _ in range(4):
        client = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        client.setblocking(False)
        try:
            client.connect(path)
        except BlockingIOError:
            return
    pytest.fail("the backlog is never full")


BRIDGE = """
import signal, subprocess
from mempalace_broker.route.bridge.ssh import Ssh, tie_children
from mempalace_broker.route.bridge.wire import SshTarget
kernel.LINUX = False
if mended:
    tie_children()
ssh = Ssh(SshTarget("nowhere")).start(
    ["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
)
print(ssh.pid, flush=True)
signal.pause()
"""


@MENDED
def test_ssh_ends_with_a_bridge_that_is_killed(env: dict[str, str], mended: bool) -> None:
    with Agent("pipe", program(BRIDGE, mended=mended), env) as bridge:
        pid = int(bridge.hear(1)[0])
        bridge.process.kill()
        bridge.process.wait()
        try:
            ended = eventually(lambda: state_of(pid) in "Z?", PATIENCE_S if mended else UNTIL_STUCK_S)
        except AssertionError:
            ended = False
            os.kill(pid, signal.SIGKILL)
        assert ended is mended


def state_of(pid: int) -> str:
    """The letter that /proc has, "?" without such a process."""
    found = process_status(pid)
    return found[0] if found is not None else "?"
