from __future__ import annotations

from pathlib import Path

import pytest

from mempalace_broker.doctor.findings import Severity
from mempalace_broker.doctor.lease import judge_leases, leases
from mempalace_broker.lease.machine.lease import MAX_EPOCH, LeaseState, Listing, NodeKind
from mempalace_broker.lease.machine.record import HolderId, LeaseRecord

HERE = HolderId(NodeKind.HOST, "mac", "boot-1", "", 7, "1:7", 1.0, "aa", "1:5")
FAR = HolderId(NodeKind.FOREIGN, "box", "boot-9", "", 8, "", 1.0, "bb")


def severities(*found: LeaseRecord, listing: Listing | None = None) -> list[str]:
    return [row.severity for row in judge_leases(listing or Listing(), list(found), HERE)]


def test_what_stands_in_the_way_is_told() -> None:
    assert severities() == [Severity.OK]
    assert severities(LeaseRecord(1, LeaseState.RELEASED, 4, False, FAR)) == [Severity.OK]
    assert severities(LeaseRecord(1, LeaseState.ACTIVE, 4, True, HERE)) == [Severity.OK]
    assert severities(LeaseRecord(1, LeaseState.ACTIVE, 4, True, HERE._replace(boot="boot-0"))) == [Severity.INFO]
    assert severities(LeaseRecord(1, LeaseState.ACTIVE, 4, True, HERE._replace(palace="1:6"))) == [Severity.INFO]
    other = LeaseRecord(1, LeaseState.ACTIVE, 4, True, HERE._replace(kind=NodeKind.FOREIGN, lock="9:9"))
    assert severities(other) == [Severity.WARN], "another mount of the share under this kernel: its lock is not ours"
    assert severities(LeaseRecord(1, LeaseState.ACTIVE, 4, True, FAR), listing=Listing((1,), frozenset({(1, 4)}))) == [
        Severity.OK
    ]
    (row,) = judge_leases(Listing(), [LeaseRecord(3, LeaseState.ACTIVE, 4, True, FAR)], HERE)
    assert row.severity == Severity.WARN
    assert "box" in row.detail
    assert "middle of a call" in row.detail
    assert "take-over --yes" in row.hint
    assert severities(listing=Listing(requested=frozenset({1}))) == [Severity.OK, Severity.INFO]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_that_can_t_be_read_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "leases"
    path.touch() if kind == "file" else path.symlink_to("leases")
    (finding,) = leases(str(path), "/no/lock")
    assert finding.severity == Severity.ERROR
    assert "take-over --yes" in finding.hint
    assert [row.severity for row in leases(str(tmp_path / "none"), "/no/lock")] == [Severity.OK]


@pytest.mark.parametrize("name", ["000000000001", "999999999999", "ask-\u00b2-x", "\x1b[2J"])
def test_what_no_broker_made_is_a_finding(tmp_path: Path, name: str) -> None:
    (tmp_path / "leases" / name).mkdir(parents=True)
    finding = next(iter(leases(str(tmp_path / "leases"), "/no/lock")))
    assert finding.severity == Severity.WARN
    assert "\x1b" not in finding.detail
    assert "take-over --yes" in finding.hint


@pytest.mark.parametrize("body", [b"x" * 512, b"x"])
def test_a_lease_that_can_t_be_read_is_a_finding(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "000000000001").write_bytes(body)
    (finding,) = leases(str(tmp_path / "leases"), "/no/lock")
    assert finding.severity == Severity.WARN
    assert "take-over --yes" in finding.hint


def test_a_made_up_highest_epoch_is_an_error() -> None:
    found = severities(LeaseRecord(MAX_EPOCH, LeaseState.RELEASED), listing=Listing((MAX_EPOCH,)))
    assert found == [Severity.ERROR, Severity.OK]
