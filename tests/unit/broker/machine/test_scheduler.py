"""Fairness, lanes, limits; and a state machine that compares every step with a naive model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mempalace_broker.broker.machine.call import Call, CallState
from mempalace_broker.broker.machine.fair_queue import FairQueue
from mempalace_broker.broker.machine.scheduler import MINE, Limits, Scheduler
from mempalace_broker.protocol.tools import Lane, rule_for

SEARCH, ADD, KG, EVENT_WAIT = "mempalace_search", "mempalace_add_drawer", "mempalace_kg_add", "mempalace_event_wait"


class Maker:
    """Calls with running numbers."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(
        self,
        tool: str = SEARCH,
        conn: int = 1,
        now: float = 0.0,
        run_limit: float | None = None,
        flow: int = 0,
        **more: Any,
    ) -> Call:
        self.n += 1
        rule = rule_for(tool)
        return Call(
            n=self.n,
            conn=conn,
            flow=flow or conn,
            key=f"k{self.n}",
            id=self.n,
            raw=b"{}",
            tool=tool,
            rule=rule,
            arrived=now,
            run_limit=run_limit,
            writes=rule.writes,
            replay=rule.replay,
            exclusive=not rule.known,
            **more,
        )


@pytest.fixture
def make() -> Maker:
    return Maker()


def started(scheduler: Scheduler, now: float = 0.0) -> list[int]:
    return [call.n for call in scheduler.dispatch(now)]


# -- fairness and lanes


def test_ten_thousand_calls_of_one_session_delay_the_other_ones_single_call_by_one(make: Maker) -> None:
    scheduler = Scheduler(Limits())
    for _ in range(10_000):
        scheduler.submit(make(conn=1))
    assert started(scheduler) == [1]
    single = make(conn=2)
    scheduler.submit(single)
    scheduler.finish(1)
    assert started(scheduler) == [2]
    scheduler.finish(2)
    assert scheduler.dispatch(0.0) == [single]


def test_sessions_take_turns_and_each_keeps_its_order(make: Maker) -> None:
    queue = FairQueue()
    for conn in (1, 1, 1, 2, 2, 3):
        queue.push(make(conn=conn))
    order = []
    while (call := queue.pop()) is not None:
        order.append(call.n)
    assert order == [1, 4, 6, 2, 5, 3]


def test_lanes_do_not_wait_for_each_other(make: Maker) -> None:
    scheduler = Scheduler(Limits(free_width=2, wait_width=1))
    for tool in (SEARCH, SEARCH, KG, KG, KG, EVENT_WAIT, EVENT_WAIT):
        scheduler.submit(make(tool))
    assert started(scheduler) == [1, 3, 4, 6]
    scheduler.finish(3)
    assert started(scheduler) == [5]
    scheduler.finish(6)
    scheduler.finish(1)
    assert started(scheduler) == [2, 7]


def test_an_exclusive_call_runs_alone(make: Maker) -> None:
    scheduler = Scheduler(Limits())
    scheduler.submit(make(KG))
    assert started(scheduler) == [1]
    scheduler.submit(make("strange"))
    scheduler.submit(make(KG))
    assert started(scheduler) == [], "the graph call waits behind the exclusive one, or that would never come"
    scheduler.finish(1)
    assert started(scheduler) == [2]
    scheduler.submit(make(EVENT_WAIT))
    scheduler.submit(make(SEARCH))
    assert started(scheduler) == []
    scheduler.finish(2)
    assert started(scheduler) == [5, 3, 4]


def test_an_exclusive_call_lets_the_palace_call_before_it_finish(make: Maker) -> None:
    scheduler = Scheduler(Limits())
    for tool in (ADD, "strange", KG):
        scheduler.submit(make(tool))
    assert started(scheduler) == [1, 3]
    scheduler.finish(1)
    assert started(scheduler) == []
    scheduler.finish(3)
    assert started(scheduler) == [2]


def test_a_withdrawn_call_is_passed_over(make: Maker) -> None:
    scheduler = Scheduler(Limits())
    calls = [make(conn=1), make(conn=1), make(conn=2)]
    for call in calls:
        scheduler.submit(call)
    assert scheduler.withdraw(calls[0])
    assert not scheduler.withdraw(calls[0])
    assert started(scheduler) == [2]
    assert not scheduler.withdraw(calls[1])
    scheduler.finish(2)
    assert not scheduler.idle
    assert started(scheduler) == [3]
    scheduler.finish(3)
    assert scheduler.idle


def test_what_came_back_from_a_dead_engine_goes_first_in_its_order(make: Maker) -> None:
    scheduler = Scheduler(Limits(free_width=3))
    for _ in range(5):
        scheduler.submit(make(KG))
    assert started(scheduler) == [1, 2, 3]
    lost = scheduler.lost()
    assert [call.n for call in lost] == [1, 2, 3]
    assert not scheduler.running
    scheduler.requeue(lost, 1.0)
    assert started(scheduler, 1.0) == [1, 2, 3]
    scheduler.finish(2)
    assert started(scheduler, 1.0) == [4]


def test_a_call_that_two_engines_left_keeps_its_place(make: Maker) -> None:
    scheduler = Scheduler(Limits())
    scheduler.mine_yields = True
    scheduler.submit(make("mempalace_mine"))
    scheduler.submit(make())
    assert started(scheduler) == [1, 2]
    scheduler.requeue(scheduler.lost(), 0.0)
    scheduler.mine_yields = False  # the next engine lets nobody in
    for _ in range(2):
        assert started(scheduler) == [1]
        scheduler.requeue(scheduler.lost(), 0.0)


# -- limits


def test_the_waiting_limit(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=10.0))
    for now in (0.0, 1.0, 2.0):
        scheduler.submit(make(now=now))
    started(scheduler)
    assert scheduler.next_deadline() == 11.0
    assert scheduler.expire(10.9).waited == []
    assert [call.n for call in scheduler.expire(11.0).waited] == [2]
    assert [call.n for call in scheduler.expire(12.0).waited] == [3]
    assert scheduler.next_deadline() is None
    assert scheduler.waiting() == []


def test_the_running_limit_is_told_once(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=0.0))
    scheduler.submit(make(KG, run_limit=5.0))
    scheduler.submit(make(KG))
    started(scheduler, 1.0)
    assert scheduler.next_deadline() == 6.0
    assert [call.n for call in scheduler.expire(6.0).ran] == [1]
    assert scheduler.expire(7.0).ran == []
    assert scheduler.next_deadline() is None


def test_a_call_that_finished_has_no_deadline(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=0.0))
    scheduler.submit(make(run_limit=5.0))
    started(scheduler)
    assert scheduler.finish(1) is not None
    assert scheduler.finish(1) is None
    assert scheduler.next_deadline() is None


def test_a_second_run_has_the_whole_limit_again(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=10.0))
    scheduler.submit(make(run_limit=5.0))
    started(scheduler, 0.0)
    scheduler.requeue(scheduler.lost(), 4.0)
    assert scheduler.expire(13.9).waited == []
    assert started(scheduler, 13.9) == [1]
    assert scheduler.expire(18.8).ran == []
    assert [call.n for call in scheduler.expire(18.9).ran] == [1]


def test_calls_beside_a_mine(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=10.0))
    scheduler.mine_yields = True
    for tool in (MINE, SEARCH, ADD, MINE):
        scheduler.submit(make(tool, run_limit=None if tool == MINE else 5.0))
    assert started(scheduler) == [1, 2]
    scheduler.begun(2, 8.0)
    scheduler.begun(2, 9.0)
    scheduler.begun(77, 9.0)
    assert scheduler.expire(12.9).ran == []
    assert [call.n for call in scheduler.expire(13.0).ran] == [2]
    scheduler.finish(2)
    assert started(scheduler, 9.0) == []


def test_a_call_that_waits_too_long_behind_a_mine_is_told_once(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=10.0))
    scheduler.mine_yields = True
    for tool in (MINE, SEARCH):
        scheduler.submit(make(tool, run_limit=None if tool == MINE else 5.0))
    started(scheduler, 4.0)
    assert scheduler.next_deadline() == 10.0
    assert scheduler.expire(9.9).behind == []
    found = scheduler.expire(10.0)
    assert ([call.n for call in found.behind], found.waited, found.ran) == ([2], [], [])
    assert scheduler.expire(99.0).behind == []


def test_a_mine_waits_for_another_mine_as_long_as_that_takes_and_keeps_nobody_waiting(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=60.0))
    scheduler.mine_yields = True
    scheduler.submit(make(MINE, conn=1))
    assert started(scheduler) == [1]
    scheduler.submit(make(MINE, conn=2))
    scheduler.submit(make(SEARCH, conn=2))
    scheduler.submit(make(SEARCH, conn=3))
    assert scheduler.has_startable
    assert started(scheduler) == [4], "past the session that wants to mine, whose calls keep their order"
    scheduler.begun(4, 1.0)
    scheduler.finish(4)
    for now in (61.0, 200.0, 3000.0):
        assert [call.n for call in scheduler.expire(now).waited] == ([3] if now == 61.0 else [])
    scheduler.finish(1)
    assert started(scheduler, 3000.0) == [2]


def test_a_mine_has_a_waiting_limit_where_no_mine_is_in_its_way(make: Maker) -> None:
    scheduler = Scheduler(Limits(wait_s=60.0))
    scheduler.submit(make(SEARCH))
    assert started(scheduler) == [1]
    scheduler.submit(make(MINE, conn=2))
    assert [call.n for call in scheduler.expire(60.0).waited] == [2]


def test_what_may_run_beside_a_mine(make: Maker) -> None:
    for tool, beside in ((SEARCH, True), ("mempalace_sync", False), ("mempalace_reconnect", False), ("strange", False)):
        scheduler = Scheduler(Limits())
        scheduler.mine_yields = True
        scheduler.submit(make(MINE, conn=1))
        started(scheduler)
        assert not scheduler.has_startable
        scheduler.submit(make(tool, conn=2))
        assert scheduler.has_startable is beside, tool
    scheduler = Scheduler(Limits())
    scheduler.mine_yields = True
    scheduler.submit(make(ADD, conn=1))
    started(scheduler)
    scheduler.submit(make(SEARCH, conn=2))
    assert not scheduler.has_startable, "only a mine lets others in"


# -- prefetches


def test_prefetches_name_the_next_texts_once_and_only_while_the_lane_is_busy(make: Maker) -> None:
    scheduler = Scheduler(Limits(prefetches=2))
    scheduler.submit(make(ADD, conn=1))
    assert scheduler.prefetches() == []
    started(scheduler)
    for conn in (1, 2, 3):
        scheduler.submit(make(SEARCH if conn < 3 else ADD, conn=conn))
    assert [call.n for call in scheduler.prefetches()] == [2, 3]
    assert scheduler.prefetches() == []


def test_a_call_without_a_text_is_not_prefetched(make: Maker) -> None:
    scheduler = Scheduler(Limits(prefetches=2))
    for conn, tool in enumerate((ADD, "mempalace_status", SEARCH)):
        scheduler.submit(make(tool, conn=conn))
    started(scheduler)
    assert [call.n for call in scheduler.prefetches()] == [3]


# -- against a model


TOOLS = [SEARCH, ADD, MINE, KG, EVENT_WAIT, "strange"]
LIMITS = Limits(wait_s=20.0, free_width=2, wait_width=2)


class Scheduling(RuleBasedStateMachine):
    """Nothing is lost, nothing runs twice, lanes keep their width, sessions their order, limits are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS)
        self.make = Maker()
        self.now = 0.0
        self.waiting: dict[int, Call] = {}
        self.running: dict[int, Call] = {}
        self.over: set[int] = set()
        self.last: dict[tuple[int, str], int] = {}  # youngest call that was sent, by session and lane
        self.returned: list[int] = []

    @initialize(yields=st.booleans())
    def engine(self, yields: bool) -> None:
        self.scheduler.mine_yields = yields

    @rule(tool=st.sampled_from(TOOLS), conn=st.integers(1, 3), count=st.integers(1, 4))
    def submit(self, tool: str, conn: int, count: int) -> None:
        for _ in range(count):
            call = self.make(tool, conn, self.now, run_limit=None if tool == MINE else 15.0)
            self.scheduler.submit(call)
            self.waiting[call.n] = call

    @rule()
    def dispatch(self) -> None:
        startable = self.scheduler.has_startable
        calls = self.scheduler.dispatch(self.now)
        assert startable == bool(calls)
        for call in calls:
            assert call.state == CallState.SENT
            assert self.waiting.pop(call.n) is call
            self.running[call.n] = call
            if call.n in self.returned:
                lane = [n for n in self.returned if self.make_lane(n) == call.rule.lane]
                assert call.n == lane[0], "what came back from a dead engine keeps its order"
                self.returned.remove(call.n)
                continue
            assert not any(self.make_lane(n) == call.rule.lane for n in self.returned), "and goes first"
            key = (call.conn, call.rule.lane)
            assert self.last.get(key, 0) < call.n
            self.last[key] = call.n

    def make_lane(self, n: int) -> str:
        return (self.waiting.get(n) or self.running[n]).rule.lane

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99))
    def finish(self, pick: int) -> None:
        n = sorted(self.running)[pick % len(self.running)]
        assert self.scheduler.finish(n) is self.running.pop(n)
        self.over.add(n)

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 99))
    def withdraw(self, pick: int) -> None:
        n = sorted(self.waiting)[pick % len(self.waiting)]
        assert self.scheduler.withdraw(self.waiting[n])
        self.forget(n)

    def forget(self, n: int) -> None:
        del self.waiting[n]
        self.over.add(n)
        if n in self.returned:
            self.returned.remove(n)

    @rule(pick=st.integers(0, 99))
    def engine_dies(self, pick: int) -> None:
        lost = self.scheduler.lost()
        assert {call.n for call in lost} == self.running.keys()
        again = [call for index, call in enumerate(lost) if (pick >> index) % 2]
        self.scheduler.requeue(again, self.now)
        for call in lost:
            del self.running[call.n]
            if call in again:
                self.comes_back(call)
            else:
                self.over.add(call.n)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99))
    def engine_refuses_a_call(self, pick: int) -> None:
        n = sorted(self.running)[pick % len(self.running)]
        call = self.running.pop(n)
        self.scheduler.finish(n)
        self.scheduler.requeue([call], self.now)
        self.comes_back(call)

    def comes_back(self, call: Call) -> None:
        self.waiting[call.n] = call
        self.returned = sorted([*self.returned, call.n], key=lambda n: self.waiting[n].turn)

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        expired = self.scheduler.expire(self.now)
        due = {n for n, call in self.waiting.items() if self.now >= call.since + LIMITS.wait_s}
        assert {call.n for call in expired.waited} == due
        for n in due:
            self.forget(n)
        for call in expired.ran:
            assert call.run_limit is not None
            assert self.now >= call.started + call.run_limit
        for call in expired.behind:
            assert not call.begun
            assert self.now >= call.since + LIMITS.wait_s

    @rule()
    def engine_begins_a_call(self) -> None:
        for n in self.running:
            self.scheduler.begun(n, self.now)

    @invariant()
    def nothing_is_lost_and_nothing_runs_twice(self) -> None:
        assert {call.n for call in self.scheduler.waiting()} == self.waiting.keys()
        assert self.scheduler.running == self.running
        assert all(call.state == CallState.QUEUED for call in self.waiting.values())
        assert all(call.state == CallState.SENT for call in self.running.values())
        assert len(self.waiting) + len(self.running) + len(self.over) == self.make.n
        assert self.scheduler.idle == (not self.waiting and not self.running)

    @invariant()
    def lanes_keep_their_width(self) -> None:
        lanes = [call.rule.lane for call in self.running.values()]
        assert lanes.count(Lane.FREE) <= LIMITS.free_width
        assert lanes.count(Lane.WAIT) <= LIMITS.wait_width
        palace = [call for call in self.running.values() if call.rule.lane == Lane.PALACE]
        assert len(palace) <= 1 or (
            self.scheduler.mine_yields and len(palace) == 2 and sum(call.tool == MINE for call in palace) == 1
        )

    @invariant()
    def exclusive_calls_run_alone(self) -> None:
        if any(call.exclusive for call in self.running.values()):
            assert [call.rule.lane for call in self.running.values() if call.rule.lane != Lane.WAIT] == [Lane.PALACE]

    @invariant()
    def a_deadline_is_never_missed(self) -> None:
        deadline = self.scheduler.next_deadline()
        waits = [call.since + LIMITS.wait_s for call in self.waiting.values()]
        assert not waits or (deadline is not None and deadline <= min(waits))

    def teardown(self) -> None:
        """Whatever waits gets its turn, without any further event."""
        for _ in range(2 * self.make.n + 1):
            self.dispatch()
            for n in list(self.running):
                self.scheduler.finish(n)
                del self.running[n]
        assert not self.waiting


Scheduling.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestScheduling = Scheduling.TestCase


def test_states_are_what_the_hub_compares_with() -> None:
    assert len({CallState.QUEUED, CallState.SENT, CallState.OVER}) == 3
