"""What mempalace's diary shows of an entry that may be stored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from mempalace_broker.broker.jobs.machine import proof
from mempalace_broker.broker.jobs.machine.proof import Proof

WRITTEN = {"agent_name": "Claude", "entry": "the heron is back", "topic": " pond ", "wing": "wing_x"}
NOW = 1_700_000_000.0


def row(content: str, at: float = NOW + 0.5, topic: str = "pond") -> dict[str, Any]:
    return {"date": "-", "timestamp": datetime.fromtimestamp(at).isoformat(), "topic": topic, "content": content}


def result(told: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(told)}]}


def found(*rows: dict[str, Any], since: float = NOW, **written: str) -> Proof:
    return proof.found(result({"agent": "claude", "entries": list(rows)}), {**WRITTEN, **written}, since, since + 60.0)


def test_the_question_is_for_that_agent_and_wing() -> None:
    assert proof.question(WRITTEN)["params"] == {
        "name": "mempalace_diary_read",
        "arguments": {"agent_name": "Claude", "last_n": 100, "wing": "wing_x"},
    }
    assert "wing" not in proof.question({"agent_name": "a", "entry": "e"})["params"]["arguments"]


def test_an_entry_of_that_text_and_topic_stored_since_then_is_it() -> None:
    assert found(row("other"), row("the heron is back")) is Proof.STORED
    assert found(row("the heron is back", topic="general"), topic="") is Proof.STORED
    assert found() is Proof.ABSENT
    assert found(row("the heron is back", NOW - 2)) is Proof.ABSENT
    assert found(row("the heron is back", topic="lake")) is Proof.ABSENT
    assert found(row("the heron is back again"), row("heron")) is Proof.ABSENT
    assert found({"timestamp": "soon", "topic": "pond", "content": "the heron is back"}) is Proof.ABSENT
    assert found(row("a \ufffd heron"), entry="a \udc00 heron") is Proof.STORED


def test_a_long_entry_is_the_sum_of_its_parts() -> None:
    long = "".join(f"the heron number {n} is back. " for n in range(90))
    parts = [row(long[at : at + 800]) for at in range(0, len(long), 800)]
    assert found(*reversed(parts), entry=long) is Proof.STORED
    assert found(row(long[:800], NOW + 9), *parts[1:], entry=long) is Proof.ABSENT


def test_a_hundred_newer_entries_hide_it() -> None:
    newer = [row(f"newer {n}", NOW + 9) for n in range(100)]
    assert found(*newer) is Proof.OPEN
    assert found(*newer[1:]) is Proof.ABSENT
    assert found(*newer[1:], row("older", NOW - 2)) is Proof.ABSENT
    assert found(*newer[1:], row("the heron is back")) is Proof.STORED


@pytest.mark.parametrize(
    ("hours", "shows"),
    [(-5.0, Proof.OPEN), (-5.75, Proof.OPEN), (+9.5, Proof.OPEN), (-5.1, Proof.ABSENT), (-27.0, Proof.ABSENT)],
)
def test_the_same_text_at_the_same_time_of_another_zone_proves_nothing(hours: float, shows: Proof) -> None:
    assert found(row("the heron is back", NOW + 3600 * hours + 30.0)) is shows


def test_a_diary_that_is_too_long_for_old_versions_proves_no_absence() -> None:
    told = {"entries": [row("older", NOW - 2)] * 100, "total": 10_000}
    assert proof.found(result(told), WRITTEN, NOW, NOW + 60.0) is Proof.OPEN
    assert proof.found(result({**told, "total": 10_001}), WRITTEN, NOW, NOW + 60.0) is Proof.ABSENT


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"content": []},
        {"content": [{"text": "{"}]},
        result("x"),
        result({"error": "Failed to read diary entries"}),
        result({"entries": 3}),
        result({"entries": [3]}),
    ],
)
def test_what_shows_no_diary_proves_nothing(answer: object) -> None:
    assert proof.found(answer, WRITTEN, NOW, NOW + 60.0) is Proof.UNREAD


def test_where_there_is_no_palace_nothing_is_stored() -> None:
    assert (
        proof.found(result({"error": "No palace found", "hint": "run init"}), WRITTEN, NOW, NOW + 60.0) is Proof.ABSENT
    )


@pytest.fixture
def autumn(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The second 02:30 of the night in which clocks are put back."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield datetime.fromisoformat("2026-10-25T01:30:00+00:00").timestamp()
    monkeypatch.undo()
    time.tzset()


def test_an_hour_that_comes_twice(autumn: float) -> None:
    assert found(row("the heron is back", autumn + 1), since=autumn) is Proof.STORED
