"""Start a daemon that outlives its starter and is nobody's child, and learn from it whether it serves.

The daemon reports on its *start pipe*, one JSON line, then closes it:

    {"state": "ready", "endpoint": "unix:/...", "pid": n}     it serves
    {"state": "lost_race"}                                    another broker owns the palace: dial that one
    {"state": "failed", "reason": "...", "hint": "..."}       it can't serve, and why

EOF without a line means that it ended: for `StartPipe` it has DIED, with the tail of its log as the reason.
`mp-shim` imports this module late, if at all.
"""

from __future__ import annotations

import json
import os

from ..errors import StartFailed, StateRootError, file_hint
from ..protocol.jsonrpc import load_object
from .environment import raise_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..errors import BrokerError

START_FD_FLAG = "--start-fd"
_MAX_LINE = 65536
_TAIL_LINES = 12
_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StartState(str):
    """How the start of a daemon ended."""

    __slots__ = ()


READY = StartState("ready")
LOST_RACE = StartState("lost_race")
FAILED = StartState("failed")
DIED = StartState("died")  # without a report


class StartResult:
    """How a start ended, and why: `reason` and `hint` are empty where the daemon serves or lost the race."""

    __slots__ = ("hint", "reason", "state")

    def __init__(self, state: StartState, reason: str = "", hint: str = "") -> None:
        self.state = state
        self.reason = reason
        self.hint = hint


class StartReport:
    """The daemon's end of the start pipe: it reports once, and closes it. A starter that is gone does not matter.

    Args:
        fd: write end, -1 where nobody listens.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self, endpoint: str) -> None:
        """Report that this process serves at `endpoint`."""
        self._send({"state": READY, "endpoint": endpoint, "pid": os.getpid()})

    def lost_race(self) -> None:
        """Report that another process holds the daemon's lock."""
        self._send({"state": LOST_RACE})

    def failed(self, error: BrokerError) -> None:
        """Report why this process can't serve."""
        self._send({"state": FAILED, "reason": error.message, "hint": error.hint})

    def _send(self, report: dict[str, Any]) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.write(fd, json.dumps(report).encode() + b"\n")
        except OSError:
            pass
        finally:
            os.close(fd)


class StartPipe:
    """The starter's end of the start pipe.

    Args:
        fd: read end; poll it for reading. It is made non-blocking and closed by this object.
        log_path: the daemon's log, quoted when it ends without a report; "" for none.
    """

    __slots__ = ("_buf", "_fd", "_log_path", "_result")

    def __init__(self, fd: int, log_path: str = "") -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._log_path = log_path
        self._buf = b""
        self._result: StartResult | None = None

    @property
    def fd(self) -> int:
        """The descriptor to poll, -1 once the daemon has reported or ended."""
        return self._fd

    def poll(self) -> StartResult | None:
        """How the start ended, None while it is under way. Never blocks; the same result each time."""
        while self._result is None:
            try:
                data = os.read(self._fd, 4096)
            except BlockingIOError:
                return None
            self._buf += data
            line, newline, _ = self._buf.partition(b"\n")
            if newline:
                self._finish(_parse(line))
            elif not data:
                self._finish(self._died())
            elif len(self._buf) > _MAX_LINE:
                self._finish(StartResult(FAILED, "the daemon flooded its start pipe instead of writing a report"))
        return self._result

    def close(self) -> None:
        """Stop listening; the daemon continues."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        if self._result is None:
            self._result = StartResult(FAILED, "its starter stopped listening")

    def _finish(self, result: StartResult) -> None:
        self._result = result
        self.close()

    def _died(self) -> StartResult:
        from .logs import tail

        lines = tail(self._log_path, _TAIL_LINES) if self._log_path else []
        said = f" The end of {self._log_path}: " + " | ".join(lines) if lines else ""
        return StartResult(DIED, f"the daemon ended before it could serve.{said}", "mempalace-broker doctor")


def _parse(line: bytes) -> StartResult:
    """The result that a report line tells of; FAILED for any other line."""
    said = load_object(line)
    reason, hint = said.get("reason"), said.get("hint")
    for state in (READY, LOST_RACE, FAILED):
        if said.get("state") == state:
            return StartResult(state, str(reason or ""), str(hint or ""))
    return StartResult(FAILED, f"the daemon's report is invalid: {line[:200]!r}")


def spawn_detached(argv: Sequence[str], *, env: Mapping[str, str], cwd: str, log_path: str) -> StartPipe:
    """Start `argv` as a daemon; return the pipe on which it reports.

    It gets a session of its own, init as its parent (a client that kills the shim's descendants does not find it),
    stdin from /dev/null, stdout and stderr appended to `log_path` ("": discarded), and of our descriptors only the
    write end of the start pipe, whose number is appended to argv: `--start-fd N`. Call it from a process without
    threads.

    Raises:
        StateRootError: the log can't be opened.
        StartFailed: the program can't be started at all.
    """
    import subprocess

    log_fd = _open_log(log_path)
    try:
        read_fd, write_fd = os.pipe()
    except OSError as exc:
        os.close(log_fd)
        raise StartFailed(f"cannot start {argv[0]}: {exc.strerror or exc}.", hint=file_hint(exc)) from exc
    try:
        child = subprocess.Popen(
            [*argv, START_FD_FLAG, str(write_fd)],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=(write_fd,),
            start_new_session=True,
            preexec_fn=_orphan,  # noqa: PLW1509 - the caller has no threads; see _orphan
        )
        child.wait()  # the process in between, which has ended by now
    except (OSError, subprocess.SubprocessError) as exc:  # the latter: no second process could be forked
        os.close(read_fd)
        words = getattr(exc, "strerror", None) or exc
        raise StartFailed(f"cannot start {argv[0]}: {words}.", hint=file_hint(exc)) from exc
    finally:
        os.close(write_fd)
        os.close(log_fd)
    return StartPipe(read_fd, log_path)


def _orphan() -> None:
    """Between fork and exec: fork again and exit, so that init becomes the daemon's parent.

    The limits go first: a daemon whose files may have 4 KB cuts off the bytecode that it writes while it is imported.
    """
    raise_limits()
    if os.fork():
        os._exit(0)


def _open_log(path: str) -> int:
    try:
        return os.open(path or os.devnull, _LOG_FLAGS if path else os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StateRootError(
            f"cannot write the log {path}: {exc.strerror or exc}.",
            hint=file_hint(exc, otherwise=f"make {os.path.dirname(path)} a writable directory of yours"),
        ) from exc
