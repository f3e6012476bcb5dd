"""How a broker is started: its command line, its environment, and the notes in start.lock."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mempalace_broker.errors import StartFailed
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route import start
from mempalace_broker.route.start import (
    broker_argv,
    broker_env,
    failure_of,
    note_failure,
    note_starter,
    recent_failure,
    start_broker,
)
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.lock_notes import StartNote
from mempalace_broker.system.paths import state_files
from tests.fakes.clock import FakeClock


def test_the_command_line_says_it_all() -> None:
    identity = PalaceIdentity("/r/palace", "/g", "config", "chroma", "c")
    argv = broker_argv(identity, state_files(identity, {}), started_by="mp-shim pid 7")
    assert argv == [
        *[sys.executable, "-P", "-m", "mempalace_broker.broker", "--palace", "/r/palace", "--palace-by", "config"],
        *["--graph", "/g", "--backend", "chroma", "--collection", "c", "--root", "/r", "--started-by", "mp-shim pid 7"],
    ]
    plain = PalaceIdentity("/p", "/g", "flag")
    argv = broker_argv(plain, state_files(plain, {}), started_by="x", executable="/py")
    assert argv[0] == "/py"
    assert not {"--backend", "--collection"} & set(argv)


def test_the_daemon_understands_its_command_line() -> None:
    """Both sides of one interface."""
    from mempalace_broker.broker.daemon import parse

    identity = PalaceIdentity("/r/palace", "/g", "env", "chroma", "c")
    argv = broker_argv(identity, state_files(identity, {}), started_by="me")
    options = parse([*argv[argv.index("mempalace_broker.broker") + 1 :], "--start-fd", "9"])
    assert (options.palace, options.palace_by, options.graph, options.root) == ("/r/palace", "env", "/g", "/r")
    assert (options.backend, options.collection, options.start_fd, options.started_by) == ("chroma", "c", 9, "me")


def test_the_daemons_environment_is_chosen() -> None:
    kept = {
        "HOME": "/h",
        "PATH": "/b",
        "MEMPALACE_BROKER_IDLE_S": "1",
        "MEMPALACE_PATH": "/r",
        "LC_ALL": "C",
        "HF_HOME": "x",
    }
    dropped = {
        "MEMPALACE_BROKER": "unix:/x",
        "MEMPALACE_BROKER_NO_SPAWN": "1",
        "GITHUB_TOKEN": "secret",
        "ANTHROPIC_API_KEY": "secret",
        "CLAUDECODE": "1",
        "PYTHONSTARTUP": "/x",
    }
    assert broker_env({**kept, **dropped}) == kept


def test_without_an_interpreter_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    identity = PalaceIdentity("/p", "/g", "flag")
    with pytest.raises(StartFailed, match="mempalace-broker run"):
        start_broker(identity, state_files(identity, {}), {}, started_by="x")


def test_notes(tmp_path: Path) -> None:
    clock = FakeClock()
    path = str(tmp_path / "start.lock")
    assert recent_failure(path, clock) is None
    assert StartNote.read(path).pid == 0
    lock = FileLock(path)
    assert lock.try_acquire()
    note_starter(lock, clock)
    assert StartNote.read(path).pid > 0
    assert recent_failure(path, clock) is None
    note_failure(lock, clock, StartFailed("on fire " * 10_000, hint="put it out"))
    found = recent_failure(path, clock)
    assert found is not None
    assert found.message.startswith("on fire")
    assert found.hint == "put it out"
    clock.move(start.FAILURE_COUNTS_S)
    assert recent_failure(path, clock) is None, "old"
    clock.move(-100)
    assert recent_failure(path, clock) is None, "from the future: a clock was set"
    note_starter(lock, clock)
    assert recent_failure(path, clock) is None, "somebody tries again"
    lock.release()


@pytest.mark.parametrize("body", [b"", b"junk", b"[]", b'{"pid": "x", "failed": 7}', b'{"failed": "x", "at": null}'])
def test_bodies_that_say_nothing(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "start.lock"
    path.write_bytes(body)
    assert StartNote.read(str(path)).pid == 0
    assert recent_failure(str(path), FakeClock()) is None


def test_a_report_becomes_an_error() -> None:
    error = failure_of({"state": "failed", "reason": "no engine", "hint": "install it"}, "/r/broker.log")
    assert str(error) == "the broker could not start: no engine (log: /r/broker.log) Hint: install it"
    assert "did not say why" in str(failure_of({"state": "failed"}, "/l"))
    assert str(failure_of({"reason": "see /l"}, "/l")).count("/l") == 1
