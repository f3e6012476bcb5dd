"""Sessions in turn, calls in order, withdrawn ones skipped."""

from __future__ import annotations

import pytest

from mempalace_broker.broker.machine.call import CallState
from mempalace_broker.broker.machine.fair_queue import FairQueue
from tests.unit.broker.machine.test_scheduler import Maker


@pytest.fixture
def make() -> Maker:
    return Maker()


def numbers(queue: FairQueue) -> list[int]:
    """What `pop` gives, to the end."""
    out = []
    while (call := queue.pop()) is not None:
        out.append(call.n)
    return out


def test_calls_that_an_engine_left_come_first_in_the_order_of_their_turns(make: Maker) -> None:
    queue = FairQueue()
    queue.push(make())
    left = [make(turn=turn) for turn in (7, 5, 6)]
    queue.push_front(left[:1])
    queue.push_front(left[1:])
    assert queue.live == 4
    assert [call.turn for call in queue.upcoming(3)] == [5, 6, 7]
    assert numbers(queue) == [3, 4, 2, 1]


def test_upcoming_is_what_pop_gives_next_at_most_one_a_session(make: Maker) -> None:
    queue = FairQueue()
    for conn in (1, 1, 2, 3):
        queue.push(make(conn=conn))
    assert [call.n for call in queue.upcoming(2)] == [1, 3]
    assert [call.n for call in queue.upcoming(9)] == [1, 3, 4]
    assert queue.upcoming(0) == []
    assert queue.live == 4, "and nothing was taken"
    assert numbers(queue) == [1, 3, 4, 2]


def test_withdrawn_calls_are_neither_upcoming_nor_counted_nor_given(make: Maker) -> None:
    queue = FairQueue()
    calls = [make(conn=conn) for conn in (1, 1, 2)]
    left = [make(turn=1), make(turn=2)]
    for call in calls:
        queue.push(call)
    queue.push_front(left)
    for call in (left[0], calls[0], calls[2]):
        queue.withdraw(call)
        assert call.state == CallState.OVER
    assert queue.live == 2
    assert queue.upcoming(9) == [left[1], calls[1]]
    assert sorted(call.n for call in queue) == [calls[1].n, left[1].n]
    assert numbers(queue) == [left[1].n, calls[1].n]
    assert queue.live == 0


def test_a_session_that_was_served_to_the_end_can_come_back(make: Maker) -> None:
    queue = FairQueue()
    queue.push(make())
    assert numbers(queue) == [1]
    queue.push(make())
    assert numbers(queue) == [2]


def test_a_session_that_withdrew_everything_has_no_turn(make: Maker) -> None:
    queue = FairQueue()
    calls = [make(conn=conn) for conn in (1, 1, 2)]
    for call in calls:
        queue.push(call)
    for call in calls[:2]:
        queue.withdraw(call)
    assert numbers(queue) == [3]


def test_passing_over_sessions_keeps_their_turns(make: Maker) -> None:
    queue = FairQueue()
    calls = [make(conn=conn) for conn in (1, 1, 2, 2, 3)]
    for call in calls:
        queue.push(call)

    def of_one(call: object) -> bool:
        return call is calls[0]

    assert queue.first(of_one) is calls[2]
    queue.take(calls[2])
    assert queue.live == 4
    assert queue.first(of_one) is calls[4]
    queue.take(calls[4])
    assert queue.first(lambda _: True) is None
    assert numbers(queue) == [1, 4, 2]


def test_connections_of_one_flow_take_turns_as_one_and_are_passed_over_one_by_one(make: Maker) -> None:
    queue = FairQueue()
    calls = [make(conn=conn, flow=7) for conn in (1, 1, 2, 3)]
    calls.append(make(conn=4))
    for call in calls:
        queue.push(call)
    assert queue.upcoming(9) == [calls[0], calls[4]]

    def of_one_and_two(call: object) -> bool:
        return call in (calls[0], calls[2])

    assert queue.first(of_one_and_two) is calls[3]
    queue.take(calls[3])
    assert numbers(queue) == [5, 1, 2, 3]


def test_calls_that_an_engine_left_are_not_passed_over(make: Maker) -> None:
    queue = FairQueue()
    queue.push(make())
    left = make(turn=1)
    queue.push_front([left])
    assert queue.first(lambda call: call is left) is None
    assert queue.first(lambda _: False) is left
    queue.take(left)
    assert numbers(queue) == [1]
