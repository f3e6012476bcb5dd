"""The command of `exclusive` gets what is sent to us alone, from its first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.cli.exclusive import child
from mempalace_broker.cli.exclusive.borrow import Loan
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_command_starts_reaches_it(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert child.run_command(context, ["sleep", "60"], Loan([]), 30.0, env=dict(os.environ)) == 128 + number
    assert before == [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
