"""broker.json is published whole, read whatever it holds, and removed only while it is ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mempalace_broker.protocol.record import BadRecord, DiscoveryRecord
from mempalace_broker.system.record_file import RecordFile
from tests.planted import plant


def record(name: str) -> DiscoveryRecord:
    return DiscoveryRecord(record=name, pid=7, endpoints=["unix:/s"], palace={"path": "/p"})


def test_what_is_published_comes_back(tmp_path: Path) -> None:
    file = RecordFile(str(tmp_path / "broker.json"))
    found = file.read()
    assert isinstance(found, BadRecord)
    assert found.absent
    file.publish(record("ab"))
    assert file.read() == record("ab")
    assert file.holds(record("ab"))
    assert not file.holds(record("cd"))
    assert (tmp_path / "broker.json").stat().st_mode & 0o777 == 0o600


def test_only_its_owner_removes_it(tmp_path: Path) -> None:
    file = RecordFile(str(tmp_path / "broker.json"))
    file.publish(record("ab"))
    assert not file.remove(record("cd"))
    assert file.read() == record("ab")
    assert file.remove(record("ab"))
    assert not (tmp_path / "broker.json").exists()


def test_one_that_can_not_be_read_is_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "broker.json").mkdir()
    found = RecordFile(str(tmp_path / "broker.json")).read()
    assert isinstance(found, BadRecord)
    assert not found.absent
    assert "can't be read" in found.reason


def test_the_owner_tidies_up(tmp_path: Path) -> None:
    file = RecordFile(str(tmp_path / "broker.json"))
    keep = {"broker.json", ".broker.json.swp", ".other.json.1-ab.tmp", "broker.json.tmp"}
    for name in keep | {".broker.json.77-0badcafe.tmp"}:
        (tmp_path / name).touch()
    file.remove_temp_files()
    assert set(os.listdir(tmp_path)) == keep


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_not_a_regular_file_is_a_bad_record(tmp_path: Path, kind: str) -> None:
    path, own = tmp_path / "broker.json", tmp_path / "own"
    own.write_bytes(b"precious")
    plant(path, kind, own)
    found = RecordFile(str(path)).read()
    assert isinstance(found, BadRecord)
    assert not found.absent
    assert own.read_bytes() == b"precious"
