"""What an engine says of itself, and which of its faults pass by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from mempalace_broker.broker.machine.engine_report import EngineReport
from mempalace_broker.protocol.engine_frames import IMPORT_FAILED, NO_MEMPALACE, WRITE_LOCK_HELD


@pytest.mark.parametrize(
    ("kind", "was_ready", "permanent"),
    [
        (NO_MEMPALACE, False, True),
        (NO_MEMPALACE, True, False),  # the package is being replaced underneath
        (IMPORT_FAILED, True, False),
        (WRITE_LOCK_HELD, False, False),  # its holder will end
        ("palace damaged", False, True),
        ("palace damaged", True, True),
    ],
)
def test_which_faults_only_a_person_can_change(kind: str, was_ready: bool, permanent: bool) -> None:
    report = EngineReport()
    if was_ready:
        report.ready({})
    assert report.fault({"reason": kind, "hint": "do"}) == (kind, "do", permanent)


def test_a_fault_has_the_engines_own_words_where_it_has_any() -> None:
    assert EngineReport().fault({"reason": "x", "message": "no such file"})[:2] == ("no such file", "")
    assert EngineReport().fault({}) == ("unknown", "", True)


def test_the_next_engine_begins_with_an_empty_report_of_its_warm_up() -> None:
    report = EngineReport()
    told: dict[str, Any] = {
        "tuneups": ["t"],
        "drawers": 7,
        "degraded": [{"what": "w"}, "x", {"hint": 3}],
        "write_limits": "",
    }
    report.ready(told)
    assert (report.tuneups, report.drawers, report.write_limits) == (["t"], 7, "")
    assert report.degraded == [{"what": "w", "hint": ""}, {"what": "", "hint": "3"}]
    report.hello({"version": "3.11.0", "python": "3.12", "graph": "/g"})
    assert (report.version, report.python, report.graph) == ("3.11.0", "3.12", "/g")
    assert (report.tuneups, report.drawers, report.write_limits) == ([], None, None)
