"""The broker of another machine, over ssh: from "I want it" to a connected socket, without ever blocking.

All shims of one container and user share one *bridge* (route/bridge): a process that keeps the way open. It listens
on one private socket, and hands out connections to the broker over it, as descriptors: nothing of ours stands between
shim and ssh afterwards. While a shim holds its connection to the bridge it counts as a user; the kernel closes that
however the shim ends, and closes a bridge's end however that ends.

`mp-shim` imports this module late, and only where the palace is another machine's: keep it lean all the same.
"""

from __future__ import annotations

import os
import sys
from _socket import CMSG_LEN, SCM_RIGHTS, SOL_SOCKET
from _socket import socket as RawSocket

from ..errors import BrokerUnavailable, StateRootError, UsageError
from ..protocol.backoff import backoff
from ..protocol.jsonrpc import load
from ..system.clock import Deadline, fraction
from .dial import dial
from .machine.election import CONNECT_DENIED, CONNECT_ENOENT, CONNECT_OK, CONNECT_REFUSED
from .unix import MAX_STARTS, PAUSE_BASE_S, PAUSE_CAP_S, START_LIMIT_S, Attempt, Connected, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..system.clock import Clock
    from ..system.lock import FileLock
    from ..system.spawn import StartPipe

DEFAULT_COMMAND = "mempalace-broker"
# what a shim says to the bridge, one line
NEW = b"new\n"
AGAIN = b"again\n"  # the connection that I had broke: make sure before you give me another
STATUS = b"status\n"  # tell about yourself; I am no user
# states in the bridge's answer, one line of JSON
READY = "ready"  # with a descriptor
FAILED = "failed"

FIELDS = ("host", "user", "port", "config", "state-root", "command")  # of a target, as the bridge's options
MAX_ANSWER = 65536
_LOOK_S = 2.0  # between two looks at the deadline
_STATUS_COMMAND = "mempalace-broker doctor"


class SshTarget:
    """Which broker, by which ssh.

    Attributes:
        host: name, address or alias of ssh's configuration. user, port: "" and 0 where ssh is to know them.
        config: absolute path of ssh's configuration file, "" for ssh's own.
        state_root: path on that host, "" for that user's default.
        command: the program on that host.
    """

    __slots__ = ("command", "config", "host", "port", "state_root", "user")

    def __init__(
        self,
        host: str,
        *,
        user: str = "",
        port: int = 0,
        config: str = "",
        state_root: str = "",
        command: str = DEFAULT_COMMAND,
    ) -> None:
        if not host or host.startswith("-") or user.startswith("-"):
            raise UsageError(f"{user}@{host} is no host for ssh.", hint="write ssh://[user@]host[:port][/state-root].")
        if config and not config.startswith("/"):  # the bridge works in /, for agents of all folders
            raise UsageError(f"ssh's configuration {config!r} is no absolute path.", hint="give it from / or ~ on.")
        self.host = host
        self.user = user
        self.port = port
        self.config = config
        self.state_root = state_root
        self.command = command

    def __str__(self) -> str:
        """As $MEMPALACE_BROKER has it."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        root = self.state_root if not self.state_root or self.state_root.startswith("/") else f"/{self.state_root}"
        return f"ssh://{user}{self.host}{port}{root}"

    def fields(self) -> list[str]:
        """All of it as words, for a command line and for the name of the folder."""
        return [self.host, self.user, str(self.port), self.config, self.state_root, self.command]


class BridgeFiles:
    """Where the bridge to one target keeps its things, in this container.

    By user id and not by XDG_RUNTIME_DIR or TMPDIR: agents do not agree on those. By host name too, for containers
    that share a /tmp.

    Attributes:
        folder: private. socket: where it listens. lock: held for its life. start_lock: held by who starts it.
        log: its words.
    """

    __slots__ = ("folder", "lock", "log", "socket", "start_lock")

    def __init__(self, target: SshTarget) -> None:
        words = "\0".join([os.uname().nodename, *target.fields()])
        self.folder = f"/tmp/mempalace-broker-{os.getuid()}/{_digest(os.fsencode(words))}"
        self.socket = f"{self.folder}/bridge.sock"
        self.lock = f"{self.folder}/bridge.lock"
        self.start_lock = f"{self.folder}/start.lock"
        self.log = f"{self.folder}/bridge.log"

    def check(self) -> bool:
        """Whether the folder is there. StateRootError: somebody else may put things into it."""
        for folder in (os.path.dirname(self.folder), self.folder):
            try:
                info = os.lstat(folder)
            except FileNotFoundError:
                return False
            if info.st_uid != os.getuid() or info.st_mode & 0o170077 != 0o040000:
                raise StateRootError(f"{folder} is not a directory that only you can use.", hint=f"remove {folder}.")
        return True

    def prepare(self) -> None:
        """Make the folder (0700). StateRootError: that can't be, or it is open to others."""
        try:
            for folder in (os.path.dirname(self.folder), self.folder):
                if not os.path.isdir(folder):
                    os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as exc:
            raise StateRootError(
                f"cannot create {self.folder}: {exc.strerror or exc}.", hint="make /tmp writable."
            ) from exc
        self.check()


def _digest(words: bytes) -> str:
    """16 hex digits. The C module, because hashlib costs milliseconds."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return str(blake2b(words, digest_size=8).hexdigest())


# Connections to bridges by folder: they make this process a user of the bridge, for its life, and outlive the route.
# Their being here also tells the next route that what it got from that bridge is gone.
_held: dict[str, RawSocket] = {}


class SshRoute(Attempt):
    """One attempt to reach the broker behind a target; steps as `route/unix.UnixRoute`.

    Args:
        target: where. env: environment variables, for the bridge if it must be started.
        deadline: of the whole attempt. started_by: who wants it, for the bridge's log.
        spawn: `start_bridge`, replaceable in tests. rng: draws from [0, 1).
    """

    def __init__(
        self,
        target: SshTarget,
        env: Mapping[str, str],
        deadline: Deadline,
        *,
        started_by: str = "",
        spawn: Callable[..., StartPipe] | None = None,
        rng: Callable[[], float] = fraction,
    ) -> None:
        self.target = target
        self.files = BridgeFiles(target)
        self.why = ""
        self._env = env
        self._deadline = deadline
        self._clock: Clock = deadline.clock
        self._started_by = started_by or f"pid {os.getpid()}"
        self._spawn = spawn
        self._rng = rng
        self._bridge: RawSocket | None = None
        self._said = b""
        self._fds: list[int] = []
        self._lock: FileLock | None = None
        self._pipe: StartPipe | None = None
        self._pipe_limit = deadline
        self._starts = 0
        self._pauses = 0
        self._not_before = 0.0

    def close(self) -> None:
        """Give up; a bridge that was started goes on, and leaves if nobody uses it."""
        self._unlock()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._hang_up()

    def _hang_up(self) -> None:
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
        for fd in self._fds:
            os.close(fd)
        self._said, self._fds = b"", []

    def _step(self) -> Connected | Waiting:
        if self._pipe is not None:
            waiting = self._hear(self._pipe)
            if waiting is not None:
                return waiting
        left = self._not_before - self._clock.monotonic()
        if left > 0 and not self._deadline.expired:
            return Waiting(min(left, self._deadline.remaining()), -1, self.why)
        if self._bridge is not None:
            return self._listen(self._bridge)
        words = self._dial()
        if self._bridge is None and words:
            return self._start_or_wait()
        return self._listen(self._bridge) if self._bridge is not None else self._pause("the bridge is busy")

    # -- the bridge that is there

    def _dial(self) -> str:
        """Connect to the bridge and ask it. What the system said where there is none, else ""."""
        if not self.files.check():
            return "no such folder"
        outcome, sock, words = dial(self.files.socket)
        if sock is None:
            if outcome == CONNECT_DENIED:
                raise BrokerUnavailable(f"{self.files.socket}: {words}.", hint="run the agent as one user.")
            return words if outcome in (CONNECT_REFUSED, CONNECT_ENOENT) else ""
        assert outcome == CONNECT_OK
        try:
            sock.send(AGAIN if self.files.folder in _held else NEW)
        except OSError:  # it leaves just now
            sock.close()
            return ""
        self._bridge = sock
        return ""

    def _listen(self, bridge: RawSocket) -> Connected | Waiting:
        """Wait for the bridge's line."""
        self.why = f"the way to {self.target} is being opened"
        while True:
            try:
                data, control, _, _ = bridge.recvmsg(4096, 64 * CMSG_LEN(4))
            except BlockingIOError:
                if self._deadline.expired:
                    raise self._late() from None
                return Waiting(min(self._deadline.remaining(), _LOOK_S), bridge.fileno(), self.why)
            except OSError:
                data, control = b"", []
            self._fds += _descriptors(control)
            self._said += data
            if self._said.endswith(b"\n"):
                return self._told(bridge)
            if not data or len(self._said) > MAX_ANSWER:
                self._hang_up()
                return self._pause("the bridge left")

    def _told(self, bridge: RawSocket) -> Connected:
        """The bridge's verdict."""
        try:
            said = load(self._said)
        except ValueError:
            said = None
        answer: dict[str, Any] = said if isinstance(said, dict) else {}
        if answer.get("state") != READY or len(self._fds) != 1:
            raise BrokerUnavailable(
                str(answer.get("message") or f"the bridge to {self.target} said nothing sensible."),
                hint=str(answer.get("hint") or _STATUS_COMMAND),
            )
        self._bridge = None
        before = _held.pop(self.files.folder, None)
        _held[self.files.folder] = bridge
        if before is not None:
            before.close()
        fd = self._fds.pop()
        os.set_inheritable(fd, False)
        sock = RawSocket(fileno=fd)
        sock.setblocking(False)
        self.close()
        return Connected(sock, str(self.target), answer.get("started") is True)

    # -- the bridge that is not there yet

    def _start_or_wait(self) -> Connected | Waiting:
        """Nobody listens: start one, unless another shim is at it."""
        from ..system.lock import FileLock, is_held

        self.files.prepare()
        lock = FileLock(self.files.start_lock)
        if not lock.try_acquire():
            return self._pause("another client starts the bridge")
        self._lock = lock
        self._dial()
        if self._bridge is not None:
            self._unlock()
            return self._listen(self._bridge)
        if is_held(self.files.lock):
            return self._pause(f"a bridge owns {self.files.folder} but does not listen yet, or no more")
        if self._starts == MAX_STARTS:
            raise BrokerUnavailable(
                f"the bridge to {self.target} comes up and is gone at once.", hint=f"look at {self.files.log}."
            )
        self._starts += 1
        self._pipe = self._start()
        self._pipe_limit = Deadline.after(self._clock, START_LIMIT_S)
        return self._hear(self._pipe) or self._step()

    def _start(self) -> StartPipe:
        from .bridge.start import start_bridge

        spawn = self._spawn or start_bridge
        return spawn(self.target, self.files, self._env, started_by=self._started_by)

    def _hear(self, pipe: StartPipe) -> Waiting | None:
        """Has the bridge that we started reported? None: dial it."""
        report = pipe.poll()
        if report is None and not (self._pipe_limit.expired or self._deadline.expired):
            self.why = "the bridge is starting"
            left = min(self._pipe_limit.remaining(), self._deadline.remaining(), _LOOK_S)
            return Waiting(left, pipe.fd, self.why)
        self._pipe = None
        pipe.close()
        self._unlock()
        if report is None:
            raise self._late()
        if report["state"] == FAILED:
            raise BrokerUnavailable(
                f"the bridge to {self.target} could not start: {report.get('reason')}",
                hint=str(report.get("hint") or f"look at {self.files.log}."),
            )
        return None  # it serves, or another one does

    def _pause(self, why: str) -> Waiting:
        self._unlock()
        self.why = why
        if self._deadline.expired:
            raise self._late()
        pause = backoff(self._pauses, base=PAUSE_BASE_S, cap=PAUSE_CAP_S, rng=self._rng)
        self._pauses += 1
        self._not_before = self._clock.monotonic() + pause
        return Waiting(min(pause, self._deadline.remaining()), -1, why)

    def _late(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"no broker over {self.target} in time: {self.why}.", hint=f"{_STATUS_COMMAND}; the log: {self.files.log}."
        )

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in a message's control data."""
    return [
        int.from_bytes(data[at : at + 4], sys.byteorder)
        for level, kind, data in control
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
        for at in range(0, len(data) - 3, 4)
    ]
