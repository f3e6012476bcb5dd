"""flock with real processes: what frees a lock, what keeps it, and what it must not be fooled by."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.lock import FileLock, is_held, read_body, wait_until_free
from tests.fakes.clock import FakeClock
from tests.planted import plant

HOLDER = """
import sys
from mempalace_broker.system.lock import FileLock
lock = FileLock(sys.argv[1])
print(lock.try_acquire(), flush=True)
sys.stdin.read()
"""


def soon() -> Deadline:
    return Deadline.after(Clock(), 20)


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock while entered."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        try:
            yield child
        finally:
            child.kill()


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    one, two = FileLock(path), FileLock(path)
    assert one.try_acquire()
    assert one.held
    assert not one.try_acquire(), "not reentrant"
    assert not two.try_acquire()
    assert (two.held, two.fd) == (False, -1)
    one.release()
    assert one.fd == -1
    assert two.try_acquire()
    two.release()
    two.release()  # twice is once


def test_the_file_is_private_permanent_and_never_truncated(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    lock = FileLock(str(path))
    assert lock.try_acquire()
    lock.write_body(b"a long body")
    lock.write_body(b"short")
    assert read_body(str(path)) == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not os.get_inheritable(lock.fd)
    lock.release()
    assert path.read_bytes() == b"short", "released, not removed"
    assert lock.try_acquire()
    assert path.read_bytes() == b"short", "taken, not truncated"
    lock.release()


def test_only_the_holder_writes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="only by its holder"):
        FileLock(str(tmp_path / "x.lock")).write_body(b"")


def test_kill_9_frees(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    lock = FileLock(str(path))
    with holder(path) as child:
        assert not lock.try_acquire()
        assert is_held(str(path)) is True
        child.send_signal(signal.SIGKILL)
        assert lock.acquire(soon())
    lock.release()


def test_a_stopped_holder_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with holder(path) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        assert is_held(str(path)) is True
        assert not FileLock(str(path)).try_acquire()


def test_a_descriptor_in_a_child_keeps_the_lock_until_the_child_ends(tmp_path: Path) -> None:
    """The engine's interlock: broker takes it, hands it on, closes its own copy, and may die."""
    path = str(tmp_path / "engine.lock")
    mine = FileLock(path)
    assert mine.try_acquire()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(mine.fd,)) as child:
        mine.close_copy()
        assert not mine.held
        assert is_held(path) is True
        assert not FileLock(path).try_acquire()
        child.kill()
        child.wait()
    other = FileLock(path)
    assert other.acquire(soon())
    other.release()


def test_release_frees_even_while_a_child_has_a_copy(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    mine = FileLock(path)
    assert mine.try_acquire()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(mine.fd,)) as child:
        mine.release()
        assert is_held(path) is False
        child.kill()


def test_a_lock_on_a_file_that_was_unlinked_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between open and flock somebody removes the file: the lock must be on what the path names now."""
    path = tmp_path / "x.lock"
    real = fcntl.flock
    meddling = ["remove", "replace"]

    def flock(fd: int, operation: int) -> None:
        real(fd, operation)
        what = meddling.pop() if meddling else ""
        if what:
            path.unlink()
        if what == "replace":
            path.touch()

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock(str(path))
    assert lock.try_acquire()
    assert not meddling
    assert os.fstat(lock.fd).st_ino == path.stat().st_ino
    lock.release()


def test_a_file_that_is_replaced_for_ever_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.lock"
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        real(fd, operation)
        path.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StateRootError, match="replaced again and again"):
        FileLock(str(path)).try_acquire()


def test_no_symlink_no_directory_no_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder", "absent/x.lock"):
        with pytest.raises(StateRootError, match=r"cannot open .*Hint: make"):
            FileLock(str(tmp_path / name)).try_acquire()


def test_a_filesystem_without_flock_is_an_error_not_an_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    path = tmp_path / "x.lock"
    path.touch()
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StateRootError, match="cannot lock"):
        FileLock(str(path)).try_acquire()
    assert is_held(str(path)) is None


def test_acquire_waits_with_growing_pauses_and_gives_up_in_time(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    first = FileLock(path)
    assert first.try_acquire()
    clock = FakeClock()
    assert not FileLock(path).acquire(Deadline.after(clock, 1.0))
    assert clock.now == pytest.approx(1001.0)
    assert clock.slept[:3] == [0.005, 0.01, 0.02]
    assert max(clock.slept) == 0.1
    first.release()


def test_probes(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    assert is_held(path) is False, "no file, no holder"
    assert not os.path.exists(path), "a probe creates nothing"
    lock = FileLock(path)
    assert lock.try_acquire()
    assert is_held(path) is True
    lock.release()
    assert is_held(path) is False
    (tmp_path / "link").symlink_to(path)
    assert is_held(str(tmp_path / "link")) is None


def test_a_body_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_body(str(tmp_path / "absent")) == b""
    assert read_body(str(tmp_path)) == b""


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    held = FileLock(path)
    assert held.try_acquire()
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        assert not FileLock(path).try_acquire()
        is_held(path)
        read_body(path)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    held.release()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "second name"])
def test_what_no_broker_made_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path, own = tmp_path / "broker.lock", tmp_path / "own"
    own.write_bytes(b"precious")
    plant(path, kind, own)
    with pytest.raises(StateRootError, match="cannot open") as refused:
        FileLock(str(path)).try_acquire()
    assert f"remove {path}, no broker made it" in refused.value.hint
    assert own.read_bytes() == b"precious"
    if kind != "second name":  # whoever reads it changes nothing
        assert is_held(str(path)) is None
        assert read_body(str(path)) == b""


def test_waiting_ends_with_the_holder(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "lock"))
    wait_until_free(lock.path)  # a file that is not there has no holder
    assert lock.try_acquire()
    waiter = threading.Thread(target=wait_until_free, args=(lock.path,), daemon=True)
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    lock.release()
    waiter.join(20)
    assert not waiter.is_alive()
    assert not is_held(lock.path)
