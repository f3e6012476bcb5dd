"""Runs a command that has the palace for itself: on this terminal, with engine.lock in its hands.

The command inherits the descriptor of engine.lock, and so does whatever it starts. A command of the user's stays in
our process group: the terminal sends Ctrl-C and Ctrl-Z to both of us, and it alone decides what they mean. A program of
ours gets a process group of its own, and every signal as SIGTERM: a Ctrl-C while Python starts prints a traceback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Self

import psutil

from ...doctor.open_files import find_open_files
from ...errors import EXIT_CANNOT_RUN, EXIT_LIMIT, file_hint
from ...system.clock import Deadline
from ...system.lock_notes import read_pid
from ...system.process_command import process_command
from ..outcome import say_error
from .borrow import other_opener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType, TracebackType

    from ...system.paths import Context
    from .borrow import Loan

GRACE_S = 5.0
_OTHERS_S = 10.0  # for what the command left running to close the palace
_LOOK_S = 0.1


def run_command(
    context: Context,
    command: Sequence[str],
    loan: Loan,
    limit_s: float | None,
    *,
    env: Mapping[str, str] | None = None,
    own: Sequence[str] = (),
) -> int:
    """Run `command` to its end, at most `limit_s` seconds; return its exit code, 128 + n if signal n ended it.

    Args:
        env: its environment, by default ours. own: it is a program of ours, and `status` shows this command for it.
    """
    env = _environment(context) if env is None else env
    with _Signals(as_sigterm=bool(own)) as signals:
        try:
            locks = [lock.fd for lock in loan.locks]
            process = subprocess.Popen(command, pass_fds=locks, env=env, process_group=0 if own else None)
        except OSError as exc:
            hint = file_hint(exc, otherwise="look at its first line: it may have to name another interpreter")
            say_error(f"cannot run {command[0]}: {exc.strerror or exc}.", hint)
            loan.settle()
            return EXIT_CANNOT_RUN
        signals.are_for(process)
        loan.say(process.pid, own or command, context.clock.wall())
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            say_error(f"{command[0]} ran longer than {limit_s:g} s (--limit) and is ended.")
            _end(process)
            code = EXIT_LIMIT
        _settle(context, loan)
    if own and code == -signal.SIGTERM and signals.passed_on:  # SIGTERM stood for it
        code = -signals.passed_on
    return code if code >= 0 else 128 - code


def _environment(context: Context) -> dict[str, str]:
    """For the command: it works in its own process, and on the palace that was named."""
    env = {**os.environ, "MEMPALACE_HUB_FORWARD": "0"}
    if context.identity.by == "flag":
        env["MEMPALACE_PALACE_PATH"] = context.identity.path
    return env


class _Signals:
    """Keeps us alive until the command has ended, and passes on the signals that are sent to us alone.

    A terminal's signals reach a command of the user's itself. Signals that come while it starts are passed on once it
    runs. passed_on: the first one that was passed on, 0 if there was none.
    """

    def __init__(self, *, as_sigterm: bool) -> None:
        self.passed_on = 0
        self._as_sigterm = as_sigterm
        self._before: dict[int, Any] = {}
        self._early: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def are_for(self, process: subprocess.Popen[bytes]) -> None:
        """Pass them on to this process."""
        self._process = process
        while self._early:
            self._pass_on(self._early.pop(0), None)

    def __enter__(self) -> Self:
        from_terminal = self._pass_on if self._as_sigterm else self._leave_to_the_command
        handlers = dict.fromkeys((signal.SIGINT, signal.SIGQUIT), from_terminal)
        handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGHUP), self._pass_on)
        self._before = {number: signal.getsignal(number) for number in handlers}
        for number, handler in handlers.items():
            if self._before[number] != signal.SIG_IGN:
                signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, earlier in self._before.items():
            signal.signal(number, earlier)

    def _leave_to_the_command(self, number: int, frame: FrameType | None) -> None:
        pass

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as every handler
        if self._process is None:
            self._early.append(number)
        else:
            self.passed_on = self.passed_on or number
            self._process.send_signal(signal.SIGTERM if self._as_sigterm else number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the command and what it started, a grace, SIGKILL."""
    try:
        found = psutil.Process(process.pid)
        family = [found, *found.children(recursive=True)]
    except psutil.Error:
        family = []
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.terminate()
    _, alive = psutil.wait_procs(family, GRACE_S)
    for member in alive:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()


def _settle(context: Context, loan: Loan) -> None:
    """The command is over. Wait a little for children that have palace files open, and name who keeps the lock."""
    deadline = Deadline.after(context.clock, _OTHERS_S)
    while (who := other_opener(context)) and not deadline.expired:
        context.clock.sleep(_LOOK_S)
    if who:
        say_error(f"{who}, though the command is over.", "mempalace-broker doctor")
    left = _heirs(context, loan)
    if left:
        loan.say(left[0], process_command(left[0]).split(), context.clock.wall())
        say_error(
            f"pid {left[0]} ({process_command(left[0]) or '?'}), which the command left running, still has the palace: "
            "calls wait until it ends.",
            f"kill {left[0]}",
        )
    else:
        loan.settle()


def _heirs(context: Context, loan: Loan) -> list[int]:
    """Other processes that have our locks open; a broker does only to look at them."""
    paths = {os.path.realpath(lock.path) for lock in loan.locks}
    broker = read_pid(context.files.owner_lock)
    found = [
        opener.pid for opener in find_open_files(context.identity.path, *paths) if paths.intersection(opener.files)
    ]
    return [pid for pid in found if pid not in (os.getpid(), broker)]
