from __future__ import annotations

import pytest

from mempalace_broker.broker.machine.outcomes import Outcomes
from mempalace_broker.protocol.hello import WriteOutcome
from tests.unit.broker.machine.test_replay import IDEMPOTENT, READ, call_of


def test_what_ran_is_done_with_its_response() -> None:
    outcomes = Outcomes()
    outcomes.ended("a", b"answer", 1.0)
    outcomes.ended("b", None, 1.0)
    assert outcomes.outcome("a", 0.0) == (WriteOutcome.DONE, b"answer")
    assert outcomes.outcome("b", 0.0) == (WriteOutcome.DONE, None)


def test_what_began_and_did_not_end_is_unknown_until_it_runs_again() -> None:
    outcomes = Outcomes()
    outcomes.unknown("a")
    assert outcomes.outcome("a", 0.0) == (WriteOutcome.UNKNOWN, None)
    outcomes.ended("a", b"x", 2.0)
    assert outcomes.outcome("a", 0.0) == (WriteOutcome.DONE, b"x")


def test_absence_proves_only_as_far_back_as_the_memory_reaches() -> None:
    outcomes = Outcomes()
    assert outcomes.outcome("a", 5.0) == (WriteOutcome.NOT_STARTED, None)
    outcomes.load({}, (), 10.0, 7.0)
    assert outcomes.outcome("a", 7.9) == (WriteOutcome.UNKNOWN, None), "within the margin"
    assert outcomes.outcome("a", 8.0) == (WriteOutcome.NOT_STARTED, None)


def test_a_journal_is_taken_over() -> None:
    outcomes = Outcomes()
    outcomes.load({"a": b"x"}, {"b"}, 10.0, float("-inf"))
    assert outcomes.outcome("a", 0.0) == (WriteOutcome.DONE, b"x")
    assert outcomes.outcome("b", 0.0) == (WriteOutcome.UNKNOWN, None)
    assert outcomes.outcome("c", 0.0) == (WriteOutcome.NOT_STARTED, None)


def test_the_memory_is_bounded_and_knows_it() -> None:
    outcomes = Outcomes(entries=2)
    for n in range(4):
        outcomes.ended(f"k{n}", b"", float(n))
    assert outcomes.covered_from == 1.0
    assert outcomes.outcome("k0", 0.0) == (WriteOutcome.UNKNOWN, None)
    assert outcomes.outcome("k3", 3.0)[0] == WriteOutcome.DONE


@pytest.mark.parametrize("covered", [3.0, float("-inf")])
def test_what_is_covered_never_grows_back(covered: float) -> None:
    outcomes = Outcomes()
    outcomes.load({}, (), 10.0, 5.0)
    outcomes.load({}, (), 11.0, covered)
    assert outcomes.covered_from == 5.0


def test_what_ended_is_not_kept_as_begun_as_well() -> None:
    outcomes = Outcomes(entries=1)
    for n in range(100):
        outcomes.unknown(f"k{n}")
        outcomes.ended(f"k{n}", b"", float(n))
    assert not outcomes._open, "or it would grow for as long as the broker lives"


STALE = b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "upgraded"}}'


@pytest.mark.parametrize(
    ("ended", "begun", "answered", "outcome"),
    [
        ({"k": b"x"}, set(), False, (WriteOutcome.DONE, b"x")),
        ({"k": None}, {"k"}, False, (WriteOutcome.DONE, None)),
        ({}, {"k"}, False, (WriteOutcome.UNKNOWN, None)),
        ({}, {"other"}, False, (WriteOutcome.NOT_STARTED, None)),
        ({}, set(), True, (WriteOutcome.UNKNOWN, None)),  # its client was told something, nobody knows what is true
        ({"k": STALE}, set(), False, (WriteOutcome.UNKNOWN, None)),  # an engine before that one may have run it
    ],
)
def test_what_the_journal_says_of_a_write_whose_engine_died(
    ended: dict[str, bytes | None], begun: set[str], answered: bool, outcome: tuple[str, bytes | None]
) -> None:
    outcomes = Outcomes()
    call = call_of(IDEMPOTENT)
    call.answered = answered
    outcomes.after_death(call, ended, begun, 5.0)
    assert outcomes.outcome("k", 5.0) == outcome


def test_a_read_has_no_outcome() -> None:
    outcomes = Outcomes()
    outcomes.after_death(call_of(READ), {"k": b"x"}, {"k"}, 5.0)
    assert outcomes.outcome("k", 5.0) == (WriteOutcome.NOT_STARTED, None)


def test_responses_are_kept_up_to_a_size_and_that_a_write_ran_longer() -> None:
    outcomes = Outcomes(response_bytes=100)
    for number in range(5):
        outcomes.ended(f"k{number}", b"x" * 40, float(number))
    outcomes.ended("k4", b"y" * 40, 5.0)
    told = [outcomes.outcome(f"k{number}", 100.0) for number in range(5)]
    assert told == [(WriteOutcome.DONE, None)] * 3 + [(WriteOutcome.DONE, b"x" * 40), (WriteOutcome.DONE, b"y" * 40)]
    assert outcomes.covered_from == float("-inf")
