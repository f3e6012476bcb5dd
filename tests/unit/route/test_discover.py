"""Where the broker might be: names only."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from mempalace_broker.errors import StateRootError
from mempalace_broker.locality import mounts
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import BadRecord, DiscoveryRecord, encode
from mempalace_broker.route.discover import Candidates, discover, fixed_endpoint, fixed_path, record_state
from mempalace_broker.route.machine.election import RECORD_FOREIGN, RECORD_MINE
from mempalace_broker.system import paths
from mempalace_broker.system.kernel import boot_id, file_id
from mempalace_broker.system.paths import Context, StateFiles, state_files
from mempalace_broker.system.process_ids import pid_namespace

ENV = {"HOME": "/h"}


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    made = state_files(PalaceIdentity(f"{os.path.realpath(tmp_path)}/palace", "/g", "flag"), ENV)
    made.prepare()
    return made


def look(files: StateFiles) -> Candidates:
    return discover(Context(PalaceIdentity(files.palace, "/g", "flag"), ENV, files=files))


def put(files: StateFiles, **changes: object) -> None:
    fields: dict[str, object] = {"record": "ab", "pid": 7, "endpoints": ["unix:/a"], "palace": {"path": "/p"}}
    Path(files.record).write_bytes(encode(DiscoveryRecord(**{**fields, **changes})))  # type: ignore[arg-type]


def test_a_record_that_came_with_a_copy_leads_nowhere(files: StateFiles) -> None:
    """Its broker serves the original, and nothing may be sent there."""
    Path(files.owner_lock).touch()
    here = {"boot": boot_id(), "lock": file_id(files.owner_lock)}
    put(files, endpoints=["unix:/elsewhere"], **here)
    assert look(files).paths == ["/elsewhere", files.socket]
    for other in ({"lock": "1:1"}, {"boot": "another boot, or another machine"}):
        put(files, endpoints=["unix:/elsewhere"], **{**here, **other})
        assert look(files).paths == [files.socket]
        put(files, endpoints=[f"unix:{files.socket}"], **{**here, **other})
        assert look(files).paths == [files.socket]


def test_the_variable() -> None:
    assert fixed_path({}) is None
    assert fixed_path({"MEMPALACE_BROKER": "  "}) is None
    assert fixed_path({"MEMPALACE_BROKER": "unix:/x"}) == "/x"
    assert fixed_path({"MEMPALACE_BROKER": "tcp://h:1"}) is None
    assert str(fixed_endpoint({"MEMPALACE_BROKER": "tcp://h:1"})) == "tcp://h:1"


def test_a_socket_folder_that_anybody_can_write_to_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LINUX", False)
    with tempfile.TemporaryDirectory() as short:
        root = f"{short}/{'r' * 120}"
        files = StateFiles(root, f"{root}/palace", env={"MEMPALACE_BROKER_PRIVATE": f"{short}/mine"})
        assert look(files).paths == [files.socket], "not there: harmless"
        files.prepare()
        folder = Path(files.socket).parent
        folder.chmod(0o777)
        with pytest.raises(StateRootError, match="can be written by other users"):
            look(files)
        folder.chmod(0o700)
        assert look(files).paths == [files.socket]
        put(files, endpoints=[f"unix:{files.socket}"])
        folder.chmod(0o777)
        with pytest.raises(StateRootError, match="can be written by other users"):
            look(files)


@pytest.mark.parametrize("which", ["root", "palace"])
def test_a_root_that_anybody_can_write_to_is_not_looked_at(files: StateFiles, which: str) -> None:
    files.prepare()
    os.chmod(getattr(files, which), 0o777)
    with pytest.raises(StateRootError, match="other users can write"):
        look(files)


def test_nothing_there(files: StateFiles) -> None:
    found = look(files)
    assert isinstance(found.record, BadRecord)
    assert found.record.absent
    assert found.paths == [files.socket]
    assert record_state(found.record, files.root) == "absent"


def test_the_records_endpoints_first_each_once(files: StateFiles) -> None:
    put(files, endpoints=["quic:x", "tcp://h:1", "unix:/a", f"unix:{files.socket}", "unix:/a", "relative"])
    assert look(files).paths == ["/a", files.socket]


def test_a_bad_record_sends_us_to_the_owners_note(files: StateFiles) -> None:
    Path(files.record).write_bytes(b"{")
    Path(files.owner_lock).write_text(json.dumps({"pid": 7, "endpoint": "unix:/o"}), encoding="utf-8")
    found = look(files)
    assert found.paths == ["/o", files.socket]
    assert record_state(found.record, files.root) == "bad"


@pytest.mark.parametrize("note", [b"", b"junk", b"[]", b'{"endpoint": 7}', b'{"endpoint": "tcp://x"}', b"\xff"])
def test_notes_that_are_none(files: StateFiles, note: bytes) -> None:
    Path(files.owner_lock).write_bytes(note)
    assert look(files).paths == [files.socket]


def test_a_record_that_is_a_directory(files: StateFiles) -> None:
    os.mkdir(files.record)
    found = look(files)
    assert isinstance(found.record, BadRecord)
    assert "can't be read" in found.record.reason
    assert not found.record.absent


def test_mine_and_foreign(files: StateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "is_local", lambda path: None)
    put(files, boot=boot_id(), pidns=pid_namespace(), host="x")
    assert record_state(look(files).record, files.root) == RECORD_MINE
    put(files, boot="other", pidns="pid:[1]", host="x")
    assert record_state(look(files).record, files.root) == RECORD_FOREIGN
    monkeypatch.setattr(mounts, "is_local", lambda path: True)
    assert record_state(look(files).record, files.root) == RECORD_MINE
