"""A bridge may lead to another palace than the one that is mounted here: the claim in the shared folder tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.lease.files import LeaseFolder
from mempalace_broker.lease.machine.lease import ACTIVE
from mempalace_broker.lease.machine.record import Writer
from mempalace_broker.route.verify import doubt
from mempalace_broker.system.paths import StateFiles

NONCE = "ab" * 8


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    """A state root in which generation 3 is claimed."""
    made = StateFiles(str(tmp_path), str(tmp_path / "palace"))
    folder = LeaseFolder(made.claims, Writer(nonce=NONCE))
    folder.prepare()
    assert folder.create(3)
    folder.write(ACTIVE, 1, busy=False)
    folder.close()
    return made


def welcome(generation: Any, nonce: Any) -> dict[str, Any]:
    return {"claim": {"generation": generation, "nonce": nonce}, "palace": {"path": "/Users/me/p"}}


def test_the_claim_that_lies_here_is_the_palaces(files: StateFiles) -> None:
    assert doubt(files, welcome(3, NONCE)) == ""


@pytest.mark.parametrize(("generation", "nonce"), [(3, "cd" * 8), (4, NONCE)])
def test_another_claim_is_another_palaces(files: StateFiles, generation: int, nonce: str) -> None:
    said = doubt(files, welcome(generation, nonce))
    assert "/Users/me/p" in said
    assert files.palace in said
    assert "palace_path" in said


def test_a_state_root_without_claims_is_not_that_brokers(tmp_path: Path) -> None:
    assert doubt(StateFiles(str(tmp_path), str(tmp_path)), welcome(3, NONCE))


@pytest.mark.parametrize("said", [{}, {"claim": 7}, {"claim": {}}, welcome("3", NONCE), welcome(3, 7), welcome(3, "")])
def test_a_broker_that_tells_no_claim_is_believed(files: StateFiles, said: dict[str, Any]) -> None:
    assert doubt(files, said) == ""
