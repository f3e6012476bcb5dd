from __future__ import annotations

from pathlib import Path

from mempalace_broker.doctor.findings import ERROR, INFO, OK, WARN
from mempalace_broker.doctor.lease import claims, rows
from mempalace_broker.lease.machine.lease import ACTIVE, FOREIGN, HOST, RELEASED, Listing
from mempalace_broker.lease.machine.record import Claim, Writer

HERE = Writer(HOST, "mac", "boot-1", "", 7, "1:7", 1.0, "aa")
FAR = Writer(FOREIGN, "box", "boot-9", "", 8, "", 1.0, "bb")


def severities(*found: Claim, listing: Listing | None = None) -> list[str]:
    return [row.severity for row in rows(listing or Listing(), list(found), "boot-1", "1:7")]


def test_what_stands_in_the_way_is_told() -> None:
    assert severities() == [OK]
    assert severities(Claim(1, RELEASED, 4, False, FAR)) == [OK]
    assert severities(Claim(1, ACTIVE, 4, True, HERE)) == [OK]
    assert severities(Claim(1, ACTIVE, 4, True, HERE._replace(boot="boot-0"))) == [INFO]
    other = Claim(1, ACTIVE, 4, True, HERE._replace(kind=FOREIGN, lock="9:9"))
    assert severities(other) == [WARN], "another mount of the share under this kernel: its lock is not ours"
    assert severities(Claim(1, ACTIVE, 4, True, FAR), listing=Listing((1,), frozenset({(1, 4)}))) == [OK]
    (row,) = rows(Listing(), [Claim(3, ACTIVE, 4, True, FAR)], "boot-1", "1:7")
    assert row.severity == WARN
    assert "box" in row.detail
    assert "middle of a call" in row.detail
    assert "take-over --yes" in row.hint
    assert severities(listing=Listing(asks=frozenset({1}))) == [OK, INFO]


def test_a_folder_that_can_t_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "000000000001").mkdir()
    assert [row.severity for row in claims(str(tmp_path / "claims"), "/no/lock")] == [ERROR]
    assert [row.severity for row in claims(str(tmp_path / "none"), "/no/lock")] == [OK]
