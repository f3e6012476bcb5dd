"""The note of a command in engine.lock is told from an engine's, and obeyed in nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.protocol.jsonrpc import to_bytes
from mempalace_broker.system.command_note import read_command, write_command
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.lock_notes import read_holder, write_holder
from mempalace_broker.system.process_ids import this_process


def locked(tmp_path: Path) -> FileLock:
    lock = FileLock(str(tmp_path / "engine.lock"))
    assert lock.try_acquire()
    return lock


def test_a_command_is_named_without_what_may_be_secret(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    write_command(lock, os.getpid(), ["/venv/bin/mempalace", "repair", "--token", "secret"], 1_795_000_000.0)
    said = read_command(lock.path)
    assert said.startswith(f"pid {os.getpid()} (mempalace repair), since 2026-11-18")
    assert read_holder(lock.path) == this_process()
    lock.release()


def test_an_engine_is_no_command(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    write_holder(lock, this_process())
    assert read_command(lock.path) == ""
    lock.release()
    assert read_command(str(tmp_path / "nothing")) == ""


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ({"command": "\x1b[2Jevil do\x1b", "pid": 7, "since": 1}, "pid 7 (a command), since 1970-01-01"),
        ({"command": "mempalace repair", "pid": "7", "since": "now"}, "mempalace repair"),
        ({"command": "x" * 4000, "pid": True, "since": 1 << 60}, "a command"),
        ({"command": 7, "pid": 7}, ""),
    ],
)
def test_whatever_somebody_wrote_is_bounded_and_printable(tmp_path: Path, note: dict[str, object], said: str) -> None:
    lock = locked(tmp_path)
    lock.write_body(to_bytes(note))
    assert read_command(lock.path)[: len(said)] == said
    assert len(read_command(lock.path)) < 100
    lock.release()
