"""How long a request of the agent may take, and the error it ends with."""

from __future__ import annotations

from typing import Any

import pytest

from mempalace_broker.errors import NOT_EXECUTED, OUTCOME_UNKNOWN
from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.protocol.tools import NO_LIMIT
from mempalace_broker.shim.machine.pending_requests import (
    ASK_GRACE_S,
    CACHE_AFTER_S,
    MARGIN_S,
    MAX_LATE,
    NO_DEADLINE,
    BrokerLimits,
    PendingRequest,
    PendingRequests,
    RequestState,
)
from tests.unit.shim.machine.dialogue import ADD, SEARCH, call, initialize

LIMITS = BrokerLimits(wait_s=10.0, run_s=20.0)


def request(message: dict[str, Any], now: float = 100.0) -> PendingRequest:
    return PendingRequest(rpc.classify(message), b"line", now)


@pytest.mark.parametrize(
    ("wait_s", "run_s", "own_s", "sent", "span"),
    [
        (10.0, 20.0, None, False, 10.0),
        (10.0, 20.0, None, True, 30.0 + MARGIN_S),
        (10.0, 20.0, 7.0, True, 17.0 + MARGIN_S),
        (10.0, 20.0, NO_LIMIT, True, NO_DEADLINE),
        (10.0, 20.0, NO_LIMIT, False, 10.0),
        (10.0, 0.0, None, True, NO_DEADLINE),
        (0.0, 20.0, None, False, NO_DEADLINE),
        (0.0, 20.0, None, True, NO_DEADLINE),
    ],
)
def test_how_long_a_request_may_stay_unanswered(
    wait_s: float, run_s: float, own_s: float | None, sent: bool, span: float
) -> None:
    assert BrokerLimits(wait_s, run_s).span(own_s, sent=sent) == span


def test_only_numbers_that_can_be_limits_are_taken_from_the_broker() -> None:
    limits = BrokerLimits(1.0, 2.0, 3.0)
    limits.update({"wait_s": 0, "run_s": -1, "init_s": "9", "other": 5})
    assert (limits.wait_s, limits.run_s, limits.init_s) == (0.0, 2.0, 3.0)


def test_a_lost_write_waits_only_a_while_for_a_broker_that_can_be_asked() -> None:
    lost = request(call(1, ADD))
    lost.state = RequestState.LOST
    assert lost.due(LIMITS, hopeless_since=NO_DEADLINE) == 130.0 + MARGIN_S
    assert lost.due(LIMITS, hopeless_since=101.0) == 101.0 + ASK_GRACE_S
    lost.state = RequestState.SENT
    assert lost.due(LIMITS, hopeless_since=101.0) == 130.0 + MARGIN_S


def test_what_the_cache_can_answer_waits_for_it_first() -> None:
    early = request(initialize())
    assert early.early
    assert early.due(LIMITS, hopeless_since=NO_DEADLINE) == 100.0 + CACHE_AFTER_S
    early.cacheable = False
    assert early.due(LIMITS, hopeless_since=NO_DEADLINE) == 110.0


def test_one_that_is_over_is_not_awaited() -> None:
    over, mine = request(call(1)), request(call(2, "mempalace_mine"))
    assert over.awaited
    over.state = RequestState.OVER
    mine.state = RequestState.SENT
    assert mine.due(LIMITS, hopeless_since=NO_DEADLINE) == NO_DEADLINE, "a mine takes hours"
    assert (over.awaited, mine.awaited) == (False, True)
    assert over.due(LIMITS, hopeless_since=0.0) == NO_DEADLINE


def test_its_name_for_people() -> None:
    assert request(call(1, SEARCH)).tool == SEARCH
    assert request({"id": 1, "method": "tools/call", "params": {"name": 7}}).tool == "tools/call"
    assert request(initialize()).tool == "initialize"


def test_an_error_says_that_it_can_be_sent_again_only_where_that_is_so() -> None:
    read = request(call(1, SEARCH))
    assert read.error("No broker.") == (
        NOT_EXECUTED,
        f"{SEARCH} was not executed: No broker. It is safe to send it again.",
    )
    assert read.error("No room. Hint: ls -l /p")[1].endswith("No room. It is safe to send it again. Hint: ls -l /p")
    assert read.error("Refused.", code=-5) == (-5, f"{SEARCH} was not executed: Refused.")
    code, text = request(call(1, ADD)).unknown("It died.")
    assert code == OUTCOME_UNKNOWN
    assert "check with mempalace_search before" in text
    assert "stored: check before" in request(call(1, "never_heard_of")).unknown("It died.")[1]


def added(table: PendingRequests, message: dict[str, Any]) -> PendingRequest:
    made = request(message)
    table.add(made, rpc.classify(message))
    return made


def test_requests_that_may_be_answered_late_are_remembered_but_not_without_end() -> None:
    table = PendingRequests()
    for n in range(MAX_LATE + 2):
        made = added(table, call(n))
        made.state = RequestState.SENT
        table.answered(made)
    kept = [made.id for made in table]
    assert (len(kept), kept[0]) == (MAX_LATE, 2)
    assert (table.unanswered, table.held_bytes) == (0, 0)


def test_of_several_with_one_id_the_oldest_unanswered_is_found() -> None:
    table = PendingRequests()
    first, second, third = (added(table, call(7)) for _ in range(3))
    assert len({first.wire_key, second.wire_key, third.wire_key}) == 3
    assert table.find(first.key) is first
    table.remove(first)
    assert table.find(first.key) is second
    second.state = RequestState.SENT
    table.answered(second)
    assert table.find(first.key) is third
    assert table.find(rpc.key_of(8)) is None
    assert table.unanswered == 1


def test_one_that_was_never_sent_leaves_nothing_behind() -> None:
    table = PendingRequests()
    waiting = added(table, call(1))
    table.answered(waiting)
    assert (list(table), waiting.awaited) == ([], False)
    lost = added(table, call(2, ADD))
    table.lose(lost)
    assert table.lost == {lost.wire_key: lost}
    table.remove(lost)
    table.remove(lost)
    assert (table.lost, list(table), table.unanswered) == ({}, [], 0)
