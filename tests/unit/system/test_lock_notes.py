"""What holders write into their locks comes back; what anybody else wrote does no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.errors import StartFailed
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.lock_notes import (
    FAILURE_COUNTS_S,
    OwnerNote,
    StartNote,
    read_holder,
    read_note,
    write_holder,
)
from mempalace_broker.system.process_ids import ProcessId, this_process
from tests.fakes.clock import FakeClock

NONSENSE = (
    b"junk",
    b"[]",
    b"\xff",
    b"7",
    b"{",
    b'{"pid": "7"}',
    b'{"pid": true, "start": "", "boot": "", "pidns": ""}',
)


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[FileLock]:
    made = FileLock(str(tmp_path / "x.lock"))
    assert made.try_acquire()
    yield made
    made.release()


def test_the_holder_comes_back(lock: FileLock) -> None:
    assert read_holder(lock.path) is None
    write_holder(lock, this_process())
    assert read_holder(lock.path) == this_process()


def test_the_owners_note_comes_back(lock: FileLock) -> None:
    assert OwnerNote.read(lock.path) is None, "nobody ever wrote"
    OwnerNote(this_process(), epoch=7, endpoint="unix:/s", root="/r", since=3).write(lock)
    found = OwnerNote.read(lock.path)
    assert found is not None
    assert (found.epoch, found.endpoint, found.root, found.since) == (7, "unix:/s", "/r", 3)
    assert found.process == read_holder(lock.path) == this_process()


def test_the_starters_note_comes_back(lock: FileLock) -> None:
    StartNote(77, 5.5).write(lock)
    assert read_note(lock.path) == {"pid": 77, "at": 5.5}
    StartNote(77, 5.5, "on fire " * 1000, "put it out").write(lock)
    found = StartNote.read(lock.path)
    assert (found.pid, found.at, found.hint) == (77, 5.5, "put it out")
    assert found.failed.startswith("on fire")
    assert len(found.failed) == 2000


@pytest.mark.parametrize("body", NONSENSE)
def test_nonsense_is_as_good_as_nothing(lock: FileLock, body: bytes) -> None:
    lock.write_body(body)
    assert read_holder(lock.path) is None
    owner, start = OwnerNote.read(lock.path), StartNote.read(lock.path)
    assert owner is not None, "but somebody wrote"
    assert (owner.process, owner.epoch, owner.endpoint, owner.root, owner.since) == (None, 0, "", "", 0)
    assert (start.pid, start.at, start.failed) == (0, 0.0, "")


def test_a_field_that_makes_no_sense_spoils_no_other(lock: FileLock) -> None:
    lock.write_body(json.dumps({"pid": 7, "epoch": -1, "endpoint": 9, "root": "/r"}).encode())
    owner = OwnerNote.read(lock.path)
    assert owner is not None
    assert (owner.process, owner.epoch, owner.endpoint, owner.root) == (None, 0, "", "/r")
    assert StartNote.read(lock.path).pid == 7


def test_a_processes_fields_are_all_needed(lock: FileLock) -> None:
    lock.write_body(json.dumps({"pid": 7, "start": "1", "boot": "b", "pidns": "n"}).encode())
    assert read_holder(lock.path) == ProcessId(7, "1", "b", "n")
    lock.write_body(json.dumps({"pid": 7, "start": "1", "boot": "b"}).encode())
    assert read_holder(lock.path) is None


def test_a_failure_counts_for_a_moment(lock: FileLock) -> None:
    clock = FakeClock()

    def failure() -> StartFailed | None:
        return StartNote.read(lock.path).failure(clock.wall())

    assert failure() is None
    StartNote(77, clock.wall()).write(lock)
    assert failure() is None
    StartNote(77, clock.wall(), "on fire " * 10_000, "put it out").write(lock)
    found = failure()
    assert found is not None
    assert found.message.startswith("on fire")
    assert found.hint == "put it out"
    clock.move(FAILURE_COUNTS_S)
    assert failure() is None, "old"
    clock.move(-100)
    assert failure() is None, "from the future: a clock was set"
    StartNote(77, clock.wall()).write(lock)
    assert failure() is None, "somebody tries again"


@pytest.mark.parametrize("body", [b"", b"junk", b"[]", b'{"pid": "x", "failed": 7}', b'{"failed": "x", "at": null}'])
def test_bodies_that_say_nothing(lock: FileLock, body: bytes) -> None:
    lock.write_body(body)
    assert StartNote.read(lock.path).pid == 0
    assert StartNote.read(lock.path).failure(FakeClock().wall()) is None
