"""Stopping what does not want to stop: who may be killed, and what is said when it does not help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.cli import stop as leave
from mempalace_broker.errors import EXIT_HELD, StopFailed
from mempalace_broker.system.find_palace import resolve_palace
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.paths import Context, state_files
from mempalace_broker.system.process_ids import process_of

HOLDER = """
import sys
from mempalace_broker.system.lock import FileLock
import json, signal
from mempalace_broker.system.process_ids import this_process
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = FileLock(sys.argv[1])
assert lock.try_acquire()
me = this_process()
lock.write_body(json.dumps({"pid": me.pid, "start": me.start, "boot": me.boot, "pidns": me.pidns}).encode())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def context() -> Iterator[Context]:
    with tempfile.TemporaryDirectory(prefix="mpb-", dir="/tmp") as folder:
        env = {"HOME": folder}
        identity = resolve_palace(str(Path(folder) / "palace"), env, folder)
        files = state_files(identity, env)
        files.prepare()
        yield Context(identity, env, files=files)


@pytest.fixture
def holder(context: Context, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the palace and listens nowhere."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, context.files.owner_lock, getattr(request, "param", "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_silent_owner_is_not_killed_unasked(context: Context, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(StopFailed, match=f"pid {holder.pid}") as caught:
        leave.stop(context, now=False, why="test")
    assert "--now" in caught.value.hint
    assert caught.value.exit_code == EXIT_HELD
    assert holder.poll() is None


@pytest.mark.parametrize("holder", ["", "stubborn"], indirect=True)
def test_a_silent_owner_is_killed_when_asked(
    context: Context, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave, "TERM_S", 0.3)
    assert leave.stop(context, now=True, why="test") == {"was_running": True, "pid": holder.pid}
    assert holder.wait(30) in (-signal.SIGTERM, -signal.SIGKILL)


def test_an_owner_without_a_name_is_left_alone(context: Context) -> None:
    lock = FileLock(context.files.owner_lock)
    assert lock.try_acquire()
    with pytest.raises(StopFailed, match="names no broker"):
        leave.stop(context, now=True, why="test")
    lock.release()


def test_a_reused_pid_is_left_alone(context: Context) -> None:
    """The body names a process with our pid and another start: that one is dead, and we are not it."""
    lock = FileLock(context.files.owner_lock)
    assert lock.try_acquire()
    me = process_of(os.getpid())
    note = {"pid": me.pid, "start": "1", "boot": me.boot, "pidns": me.pidns}
    lock.write_body(json.dumps(note).encode())
    with pytest.raises(StopFailed, match="names no broker"):
        leave.stop(context, now=True, why="test")
    lock.release()


def test_another_program_of_the_user_is_not_killed(context: Context) -> None:
    """Whoever can write the palace may hold the lock, and write any process into it."""
    lock = FileLock(context.files.owner_lock)
    assert lock.try_acquire()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        it = process_of(victim.pid)
        note = {"pid": it.pid, "start": it.start, "boot": it.boot, "pidns": it.pidns}
        lock.write_body(json.dumps(note).encode())
        with pytest.raises(StopFailed, match="names no broker"):
            leave.stop(context, now=True, why="test")
        assert victim.poll() is None
        victim.communicate(b"\n")
    lock.release()


def test_what_does_not_die_is_named(
    context: Context, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave, "TERM_S", 0.05)
    monkeypatch.setattr(leave, "KILL_S", 0.05)
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    with pytest.raises(StopFailed, match=rf"pid {holder.pid}, .*survives SIGKILL"):
        leave.stop(context, now=True, why="test")


def test_who_may_not_kill_says_so(
    context: Context, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.kill", refused)
    with pytest.raises(StopFailed, match="not allowed") as caught:
        leave.stop(context, now=True, why="test")
    assert f"sudo kill -9 {holder.pid}" in caught.value.hint


def test_an_engine_that_outlives_its_broker_is_named(
    context: Context, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leave, "TERM_S", 0.05)
    monkeypatch.setattr(leave, "KILL_S", 0.5)
    engine = FileLock(context.files.engine_lock)
    assert engine.try_acquire()
    me = process_of(os.getpid())
    engine.write_body(json.dumps({"pid": me.pid, "start": me.start, "boot": me.boot, "pidns": me.pidns}).encode())
    with pytest.raises(StopFailed, match=rf"its engine \(pid {os.getpid()}, .*still has the palace"):
        leave.stop(context, now=True, why="test")
    assert holder.wait(30)
    engine.release()


def test_the_next_broker_is_not_the_one_that_was_stopped(context: Context) -> None:
    """A dead owner is gone although somebody else holds the lock by now."""
    child = subprocess.run(
        [sys.executable, "-c", HOLDER, context.files.owner_lock, ""], input="", text=True, check=True
    )
    assert child.returncode == 0
    before = leave.LockHolder(context.files.owner_lock)
    lock = FileLock(context.files.owner_lock)
    assert lock.try_acquire()
    assert not before.is_present
    me = process_of(os.getpid())
    lock.write_body(json.dumps({"pid": me.pid, "start": me.start, "boot": me.boot, "pidns": me.pidns}).encode())
    after = leave.LockHolder(context.files.owner_lock)
    assert after.is_present
    lock.release()


def test_where_pids_mean_nothing_the_lock_decides(context: Context) -> None:
    lock = FileLock(context.files.owner_lock)
    assert lock.try_acquire()
    lock.write_body(json.dumps({"pid": 7, "start": "1", "boot": "another", "pidns": "x"}).encode())
    holder = leave.LockHolder(context.files.owner_lock)
    assert holder.is_present
    assert not holder.is_alive
    lock.release()
    assert not holder.is_present


def test_nobody_is_nobody(context: Context) -> None:
    assert leave.LockHolder(context.files.owner_lock).who is None
    assert leave.stop(context, now=True, why="test") == {"was_running": False, "pid": None}
