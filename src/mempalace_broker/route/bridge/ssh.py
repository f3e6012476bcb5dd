"""Running ssh: its arguments, and one command to its end within a time.

Each option is there because of what was seen to happen without it:

    BatchMode               nobody is there to answer a question; ssh would wait for ever
    ConnectTimeout          ssh would wait minutes for a host that is off
    ServerAlive*            a frozen connection ends after 15 s; over the user's own master it has no effect
    ControlMaster=no        use the user's master where there is one, never leave one behind in the user's name
    ClearAllForwardings     a LocalForward in the user's configuration would be bound a second time, and fail
    RemoteCommand=none      one in the user's configuration refuses ours
    PermitLocalCommand=no, ForwardAgent=no, ForwardX11=no    not for us
    -T                      a terminal would change bytes
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from ...errors import BrokerUnavailable
from ...system import kernel
from ..machine.ssh_failures import SshFailure, SshHost, no_ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .wire import SshTarget

CONNECT_TIMEOUT_S = 10
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ForwardAgent=no",
    "ForwardX11=no",
)
_NO_CONFIG = ("-F", "/dev/null")
_ANY_HOST = "bridge"  # the control socket says it all, but ssh still wants a name
_PR_SET_PDEATHSIG = 1
_END_S = 2.0


class TunnelError(BrokerUnavailable):
    """The tunnel can't be opened; `failure` says why."""

    def __init__(self, failure: SshFailure) -> None:
        super().__init__(failure.message, hint=failure.hint)
        self.failure = failure


class Ran(NamedTuple):
    """A command's end: `status` is None where it took too long and was killed."""

    status: int | None
    out: bytes
    err: str


class Ssh:
    """ssh commands for one target."""

    def __init__(self, target: SshTarget, program: str = "ssh") -> None:
        self.target = target
        self._program = program
        self._config = ["-F", target.config] if target.config else []
        self._where = [
            *(["-p", str(target.port)] if target.port else []),
            *(["-l", target.user] if target.user else []),
        ]
        shown = shlex.join([program, *self._config, *self._where, target.host])
        self.host = SshHost(target.host, shown, target.command, target.config)

    def _to_host(self, options: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        words = [word for option in (*options, *_OPTIONS) for word in ("-o", option)]
        return [self._program, *self._config, *self._where, *words, "-T", *flags, "--", self.target.host]

    def command(self, control: str, program: str, *words: str) -> list[str]:
        """Run `program words...` on the host, over the master at `control`, or over a new connection if ""."""
        root = ["--state-root", self.target.state_root] if self.target.state_root else []
        told = " ".join([program, *map(shlex.quote, [*words, *root])])  # `program` may start with ~/: not quoted
        return [*self._to_host(_over(control)), told]

    def master(self, control: str) -> list[str]:
        """Open a connection that others share through `control`, in the foreground."""
        return self._to_host(["ControlMaster=yes", f"ControlPath={control}"], ["-N"])

    def settings(self) -> list[str]:
        """Print the settings that apply to the host."""
        return [self._program, *self._config, *self._where, "-G", "--", self.target.host]

    def tell(self, control: str, what: str, forward: str = "") -> list[str]:
        """Tell the master at `control` something: check, exit, forward, cancel."""
        words = ["-L", forward] if forward else []
        # Without a configuration: ssh would request its LocalForward as well.
        return [self._program, *_NO_CONFIG, "-S", control, "-O", what, *words, "--", _ANY_HOST]

    def run(self, argv: Sequence[str], limit: float) -> Ran:
        """Run a command to its end, or for `limit` seconds. TunnelError: there is no ssh."""
        with self.start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=max(limit, 0.0))
                return Ran(process.returncode, out, err.decode("utf-8", "replace"))
            except subprocess.TimeoutExpired as exc:
                said = exc.stderr or b""
                return Ran(None, exc.stdout or b"", said.decode("utf-8", "replace"))
            finally:
                end(process)

    def start(self, argv: Sequence[str], *, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start a command that ends when we do, however we end. TunnelError: there is no ssh."""
        try:
            return subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                preexec_fn=_tied(),  # noqa: PLW1509 - the bridge has no threads
            )
        except OSError as exc:
            raise TunnelError(no_ssh(self.host, exc.strerror or str(exc))) from exc


def _over(control: str) -> list[str]:
    return ["ControlMaster=no", f"ControlPath={control or 'none'}"]


def tie_children() -> None:
    """Let whatever we start end when we are killed, however that happens. Call it once, without threads.

    Linux has its kernel do it, child by child, see `_tied`. Elsewhere a process stays beside us that waits for the end
    of a pipe that we alone hold, then ends the process group that we share with our children.
    """
    if kernel.LINUX:
        return
    with contextlib.suppress(PermissionError):  # we lead a session, and so a group
        os.setpgid(0, 0)
    read, write = os.pipe()
    if os.fork():
        os.close(read)
        return
    os.close(write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(read, 1)
    os.killpg(0, signal.SIGTERM)
    os._exit(0)


def _tied() -> Callable[[], None] | None:
    """For Popen: let the kernel end the child when we are killed. Only Linux can."""
    if not kernel.LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    return tie


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child: SIGTERM, a moment, SIGKILL."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    if process.poll() is None:
        process.kill()
        process.wait()
