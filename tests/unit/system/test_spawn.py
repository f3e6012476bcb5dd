"""A daemon that is nobody's child, inherits nothing but its start pipe, and reports on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mempalace_broker.errors import StartFailed, StateRootError
from mempalace_broker.system.process_ids import DEAD, ZOMBIE, process_of, process_state
from mempalace_broker.system.spawn import (
    DIED,
    FAILED,
    LOST_RACE,
    READY,
    StartPipe,
    StartReport,
    StartResult,
    StartState,
    spawn_detached,
)
from tests.proctools import eventually, own_children, own_descriptors

REPORT_WORLD = """
import json, os, sys
start_fd = int(sys.argv[-1])
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass  # the listing itself
world = {"pid": os.getpid(), "ppid": os.getppid(), "sid": os.getsid(0), "pgid": os.getpgid(0),
         "cwd": os.getcwd(), "env": sorted(os.environ), "fds": fds, "argv": sys.argv[1:]}
print(json.dumps(world), flush=True)
os.write(start_fd, b'{"state": "ready"}\\n')
"""
LIVE_ON = """
import os, sys, time
print(os.getpid(), flush=True)
os.write(int(sys.argv[-1]), b'{"state": "ready"}\\n')
time.sleep(60)
"""
STARTER = """
import sys
from mempalace_broker.system.spawn import spawn_detached
import select
pipe = spawn_detached([sys.executable, "-c", sys.argv[1]], env={}, cwd="/", log_path=sys.argv[2])
while pipe.poll() is None:
    select.select([pipe.fd], [], [])
print(open(sys.argv[2]).read(), flush=True)
sys.stdin.read()
"""


def result_of(pipe: StartPipe) -> StartResult:
    """How the start ended, once that is known."""
    return eventually(pipe.poll, what="the daemon's report")


def spawn(tmp_path: Path, code: str, *args: str) -> StartPipe:
    log = str(tmp_path / "d.log")
    return spawn_detached([sys.executable, "-I", "-S", "-c", code, *args], env={"A": "1"}, cwd="/", log_path=log)


def test_a_daemon_owes_nothing_to_its_starter(tmp_path: Path) -> None:
    leak_read, leak_write = os.pipe()
    os.set_inheritable(leak_write, True)  # as a careless harness leaves them
    leak_file = os.open(tmp_path / "leak", os.O_CREAT | os.O_RDWR)
    try:
        result = result_of(spawn(tmp_path, REPORT_WORLD, "x"))
    finally:
        for fd in (leak_read, leak_write, leak_file):
            os.close(fd)
    assert result.state == READY
    report = json.loads((tmp_path / "d.log").read_bytes())
    assert report["ppid"] != os.getpid()
    assert report["sid"] not in (os.getsid(0), report["pid"]), "a session of its own, and no terminal to catch"
    assert report["pgid"] == report["sid"]
    assert (report["cwd"], set(report["env"]) - {"LC_CTYPE"}) == ("/", {"A"})
    assert report["argv"][:-1] == ["x", "--start-fd"]
    start_fd = report["argv"][-1]
    fds = report["fds"]
    assert fds.pop("0") == "/dev/null"
    assert fds.pop("1") == fds.pop("2") == str(tmp_path / "d.log")
    assert fds.pop(start_fd).startswith("pipe:")
    assert fds == {}, "nothing else"


def test_no_child_and_no_descriptor_stays_with_us(tmp_path: Path) -> None:
    files, children = own_descriptors(), own_children()
    pipe = spawn(tmp_path, REPORT_WORLD)
    assert result_of(pipe).state == READY
    assert pipe.fd == -1
    assert own_descriptors() <= files
    assert own_children() <= children


def test_it_survives_the_death_of_its_starters_group(tmp_path: Path) -> None:
    """What a harness does to a shim: the whole process group, at once."""
    argv = [sys.executable, "-c", STARTER, LIVE_ON, str(tmp_path / "d.log")]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as starter:
        assert starter.stdout is not None
        daemon = process_of(int(starter.stdout.readline()))
        os.killpg(starter.pid, signal.SIGKILL)
        starter.wait()
    assert process_state(daemon) == "alive"
    os.kill(daemon.pid, signal.SIGKILL)
    eventually(lambda: process_state(daemon) in (DEAD, ZOMBIE) or None, what="end of the daemon")


def test_a_daemon_that_dies_is_quoted(tmp_path: Path) -> None:
    result = result_of(spawn(tmp_path, "import sys; print('hello', flush=True); sys.exit('palace on fire')"))
    assert result.state == DIED
    assert "ended before it could serve" in result.reason
    assert "hello | palace on fire" in result.reason
    assert result.hint


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="No such file"):
        spawn_detached(["/no/such/program"], env={}, cwd="/", log_path=str(tmp_path / "d.log"))
    with pytest.raises(StartFailed):
        spawn_detached([sys.executable], env={}, cwd="/no/such/folder", log_path=str(tmp_path / "d.log"))


def test_a_log_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(StateRootError, match="cannot write the log"):
        spawn_detached([sys.executable], env={}, cwd="/", log_path=str(tmp_path / "absent" / "d.log"))


def piped(data: bytes, *, close: bool = True) -> tuple[StartPipe, int]:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, data)
    if close:
        os.close(write_fd)
    return StartPipe(read_fd), write_fd


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"state": "ready", "endpoint": "unix:/x", "pid": 7}\n', READY),
        (b'{"state": "lost_race"}\nmore', LOST_RACE),
        (b'{"state": "failed", "reason": "r", "hint": "m"}\n', FAILED),
        (b'{"state": "dancing"}\n', FAILED),
        (b"Traceback (most recent call last)\n", FAILED),
        (b"\xff\xfe\n", FAILED),
        (b"[" * 9000 + b"\n", FAILED),
        (b"null\n", FAILED),
        (b'{"state": "ready"}', DIED),  # no newline: killed while it wrote
        (b"", DIED),
    ],
)
def test_whatever_the_pipe_says(data: bytes, expected: StartState) -> None:
    pipe, _ = piped(data)
    result = result_of(pipe)
    assert result.state == expected
    assert bool(result.reason) == (expected in (FAILED, DIED))
    assert pipe.poll() is result, "asked again, the same"


def test_a_flood_without_a_line_is_cut_off(tmp_path: Path) -> None:
    result = result_of(spawn(tmp_path, "import os, sys\nwhile True: os.write(int(sys.argv[-1]), b'x' * 4096)"))
    assert result.state == FAILED
    assert "flood" in result.reason


def test_poll_never_blocks_and_joins_pieces() -> None:
    pipe, write_fd = piped(b'{"state": ', close=False)
    assert pipe.poll() is None
    os.write(write_fd, b'"ready"}\n')
    assert result_of(pipe).state == READY
    os.close(write_fd)


def test_closing_early() -> None:
    pipe, write_fd = piped(b"", close=False)
    pipe.close()
    pipe.close()
    os.close(write_fd)
    assert pipe.fd == -1
    assert result_of(pipe).state == FAILED


def reported(send: Callable[[StartReport], None]) -> tuple[StartState, str, str]:
    """The report as the starter gets it; a second one is not sent."""
    read_fd, write_fd = os.pipe()
    report = StartReport(write_fd)
    send(report)
    report.failed(StartFailed("late."))
    result = result_of(StartPipe(read_fd))
    return result.state, result.reason, result.hint


def test_the_daemon_reports_once_and_its_starter_understands() -> None:
    assert reported(lambda report: report.ready("unix:/x")) == (READY, "", "")
    assert reported(StartReport.lost_race) == (LOST_RACE, "", "")
    error = StartFailed("no.", hint="try again")
    assert reported(lambda report: report.failed(error)) == (FAILED, "no.", "try again")


def test_a_starter_that_is_gone_does_not_matter() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    StartReport(write_fd).lost_race()
    StartReport(-1).lost_race()
