"""A command's clean-up is whole, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mempalace_broker.cli.cleanup import STRAGGLER_S, end_stragglers, single_interrupt, uninterrupted

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """As a shell starts a command: pytest may have been started with some of them ignored."""
    before = [signal.signal(number, signal.default_int_handler) for number in SIGNALS]
    yield
    assert {signal.getsignal(number) for number in SIGNALS} == {signal.default_int_handler}
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def interrupted_twice(number: signal.Signals, cleaned: list[str]) -> None:
    with single_interrupt():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append("all")


def interrupted_while_it_cleans_up(number: signal.Signals, cleaned: list[str]) -> None:
    with single_interrupt(), uninterrupted():
        signal.raise_signal(number)
        cleaned.append("all")


@pytest.mark.parametrize("command", [interrupted_twice, interrupted_while_it_cleans_up])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_clean_up_is_done_before_a_signal_counts(
    command: Callable[[signal.Signals, list[str]], None], number: signal.Signals
) -> None:
    cleaned: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        command(number, cleaned)
    assert cleaned == ["all"]


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with single_interrupt(), uninterrupted():
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.default_int_handler)


PARENT = """
import os, subprocess, time
subprocess.Popen(["sleep", "60"], env={**os.environ, "HOME": os.environ["OTHER_HOME"]}, stdout=subprocess.DEVNULL)
print("started", flush=True)
time.sleep(60)
"""


def test_stragglers_are_ended_and_a_zombie_is_not_waited_for(tmp_path: Path) -> None:
    """As in a container whose first process reaps late, or never."""
    env = {**os.environ, "OTHER_HOME": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=env, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        (straggler,) = psutil.Process(parent.pid).children()
        began = time.monotonic()
        end_stragglers(str(tmp_path))
        assert time.monotonic() - began < STRAGGLER_S
        assert straggler.status() == psutil.STATUS_ZOMBIE
        assert parent.poll() is None
    finally:
        parent.kill()
        parent.communicate()
