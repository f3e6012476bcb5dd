"""Which palace a state root means, for those who name it from another machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mempalace_broker.cli.context_options import context_at, context_for
from mempalace_broker.errors import UsageError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.protocol.record import DiscoveryRecord, encode
from mempalace_broker.system.find_palace import PALACE_VARIABLES
from mempalace_broker.system.lock import FileLock
from mempalace_broker.system.lock_notes import OwnerNote
from mempalace_broker.system.paths import ROOT_VARIABLE
from mempalace_broker.system.process_ids import this_process


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME with a palace that config.json names."""
    for name in (*PALACE_VARIABLES, ROOT_VARIABLE, "MEMPALACE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mempalace").mkdir()
    (tmp_path / ".mempalace/config.json").write_text(json.dumps({"palace_path": str(tmp_path / ".mempalace/palace")}))
    return tmp_path


def test_the_users_own_root_means_the_palace_that_is_his_anyway(home: Path) -> None:
    plain = context_for(None)
    for root in (str(home / ".mempalace"), "~/.mempalace", f"{home}/.mempalace/"):
        found = context_at(root, None)
        assert found.identity.as_json() == plain.identity.as_json(), root
        assert found.files.socket == plain.files.socket
        assert found.files.owner_lock == plain.files.owner_lock


def test_another_root_means_the_palace_in_it(home: Path) -> None:
    found = context_at(str(home / "other"), None)
    assert found.identity.path == str(home / "other/palace")
    assert found.files.root == str(home / "other")
    assert found.identity.as_json() == context_for(str(home / "other/palace")).identity.as_json(), "as --palace does"


def test_a_root_whose_broker_left_its_record_means_that_brokers_palace(home: Path) -> None:
    root, palace = home / "other", home / "elsewhere"
    root.mkdir()
    identity = PalaceIdentity(str(palace), str(palace / "kg"), "env", "qdrant")
    record = DiscoveryRecord(
        record="ab" * 16,
        pid=1,
        start="1",
        boot="b",
        pidns="p",
        host="h",
        endpoints=["unix:/x"],
        palace=identity.as_json(),
        started_by="",
    )
    (root / "broker.json").write_bytes(encode(record))
    assert context_at(str(root), None).identity.path == str(root / "palace"), "that palace knows of no broker here"
    palace.mkdir()
    lock = FileLock(str(palace / "broker.lock"))
    assert lock.try_acquire()
    OwnerNote(this_process(), root=str(root)).write(lock)
    lock.release()
    found = context_at(str(root), None)
    assert found.identity.as_json() == identity.as_json()
    shutil.copytree(root, home / "copy")
    assert context_at(str(home / "copy"), None).identity.path == str(home / "copy/palace"), (
        "its broker has another root"
    )
    assert found.files.root == str(root)
    assert found.env[ROOT_VARIABLE] == str(root), "whoever is started from here must find the same files"


def test_a_palace_beside_it_wins(home: Path) -> None:
    found = context_at(str(home / "other"), str(home / "mine"))
    assert (found.identity.path, found.files.root) == (str(home / "mine"), str(home / "other"))


def test_a_relative_root_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="absolute"):
        context_at("other", None)
