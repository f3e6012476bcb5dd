"""A command that has the palace gets what is sent to us alone, from its first moment on; one of our own, a SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.cli.exclusive import child
from mempalace_broker.cli.exclusive.borrow import Loan
from mempalace_broker.errors import EXIT_CANNOT_RUN
from mempalace_broker.system.command_note import read_command
from mempalace_broker.system.lock import FileLock
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize(
    ("own", "number"),
    [((), signal.SIGTERM), ((), signal.SIGHUP), (("move-to",), signal.SIGINT), (("move-to",), signal.SIGTERM)],
)
def test_a_signal_while_the_command_starts_reaches_it(
    own: tuple[str, ...], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_and_be_told(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        process = start(*args, **kwargs)
        os.kill(os.getpid(), number)
        return process

    start = subprocess.Popen
    before = [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr(subprocess, "Popen", start_and_be_told)
    monkeypatch.setattr(child, "_settle", lambda *_: None)
    monkeypatch.setattr(Loan, "say", lambda *_: None)
    context = cast(Any, SimpleNamespace(clock=FakeClock()))
    assert child.run_command(context, ["sleep", "60"], Loan([]), 30.0, env=dict(os.environ), own=own) == 128 + number
    assert before == [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_the_exit_code_names_the_signal_that_ended_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an earlier one, which was passed on and which it ignored."""
    monkeypatch.setattr(child, "_settle", lambda *_: None)
    monkeypatch.setattr(Loan, "say", lambda *_: None)
    context = cast(Any, SimpleNamespace(clock=FakeClock()))
    command = ["sh", "-c", "trap '' HUP; kill -HUP $PPID; kill -TERM $$"]
    assert child.run_command(context, command, Loan([]), 30.0, env=dict(os.environ)) == 128 + signal.SIGTERM


def test_the_note_of_a_command_that_is_over_is_kept_by_nobody(tmp_path: Path) -> None:
    """One that can't be run takes its note back; that of one that was killed is not put back by the next."""
    context = cast(Any, SimpleNamespace(clock=FakeClock()))
    lock = FileLock(str(tmp_path / "command.lock"))
    assert lock.try_acquire()
    loan = Loan([lock])
    loan.say(os.getpid(), ["killed"], 1.0)
    assert "killed" in read_command(lock.path)
    loan = Loan([lock])
    loan.say(os.getpid(), ["plain"], 2.0)
    (tmp_path / "plain").touch()
    assert child.run_command(context, [str(tmp_path / "plain")], loan, None, env={}) == EXIT_CANNOT_RUN
    assert read_command(lock.path) == ""
    lock.release()
