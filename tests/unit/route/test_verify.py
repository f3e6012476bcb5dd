"""A bridge may lead to another palace than the one that is mounted here: the lease in the shared folder tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.lease.files import LeaseFolder
from mempalace_broker.lease.machine.lease import VISIBILITY_DELAY_S, LeaseState
from mempalace_broker.lease.machine.record import HolderId
from mempalace_broker.route import verify
from mempalace_broker.route.verify import verify_palace
from mempalace_broker.system.paths import StateFiles

NONCE = "ab" * 8


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    """A state root in which epoch 3 is taken."""
    made = StateFiles(str(tmp_path), str(tmp_path / "palace"))
    folder = LeaseFolder(made.leases, HolderId(nonce=NONCE))
    folder.prepare()
    assert folder.create(3)
    folder.write(LeaseState.ACTIVE, 1, busy=False)
    folder.close()
    return made


def welcome(epoch: Any, nonce: Any) -> dict[str, Any]:
    return {"lease": {"epoch": epoch, "nonce": nonce}, "palace": {"path": "/Users/me/p"}}


def test_a_broker_whose_lease_lies_here_has_this_palace(files: StateFiles) -> None:
    assert verify_palace(files, welcome(3, NONCE)) == ""


def test_a_lease_that_stands_still_came_with_a_copy(files: StateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(verify, "monotonic", lambda: clock[0])
    monkeypatch.setattr(verify, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    told = welcome(3, NONCE)
    for sequence, said in ((0, ""), (1, ""), ("x", ""), (2, "is a copy of that")):
        told["lease"]["sequence"] = sequence
        assert said in verify_palace(files, told)
        assert bool(said) == bool(verify_palace(files, told))
    assert clock[0] >= VISIBILITY_DELAY_S, "the other kernel may see it a moment later"


@pytest.mark.parametrize(("epoch", "nonce"), [(3, "cd" * 8), (4, NONCE)])
def test_another_lease_is_another_palace(files: StateFiles, epoch: int, nonce: str) -> None:
    said = verify_palace(files, welcome(epoch, nonce))
    assert "/Users/me/p" in said
    assert files.palace in said
    assert "palace_path" in said


def test_a_state_root_without_leases_is_another_brokers(tmp_path: Path) -> None:
    assert verify_palace(StateFiles(str(tmp_path), str(tmp_path)), welcome(3, NONCE))


@pytest.mark.parametrize("said", [{}, {"lease": 7}, {"lease": {}}, welcome("3", NONCE), welcome(3, 7), welcome(3, "")])
def test_a_broker_that_names_no_lease_is_believed(files: StateFiles, said: dict[str, Any]) -> None:
    assert verify_palace(files, said) == ""
