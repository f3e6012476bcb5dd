"""When the bridge checks, sets up, serves, refuses and leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.route.machine.bridge import (
    FRESH_S,
    LINGER_S,
    MAX_HOLD_S,
    PROBE_S,
    BridgeState,
    BridgeTask,
    TransportMode,
    usable_modes,
)

FORWARD, STDIO = TransportMode.FORWARD, TransportMode.STDIO
REST, SERVE, CHECK, SET_UP, REFUSE, PROBE, LEAVE = BridgeTask
PATH = "/home/me/.mempalace/broker.sock"


@pytest.mark.parametrize(
    ("path", "last", "found"),
    [
        (PATH, None, [FORWARD, STDIO]),
        (PATH, FORWARD, [FORWARD, STDIO]),
        (PATH, STDIO, [STDIO, FORWARD]),
        ("/home/a b/broker.sock", FORWARD, [STDIO]),
        ("/home/100%/broker.sock", None, [STDIO]),
        ("/tmp/a:b/broker.sock", None, [STDIO]),
        ("/" + "x" * 107, None, [STDIO]),
        ("/" + "x" * 106, None, [FORWARD, STDIO]),
    ],
)
def test_modes_worth_trying(path: str, last: TransportMode | None, found: list[TransportMode]) -> None:
    assert usable_modes(path, last) == found


def test_one_set_up_serves_all_who_asked() -> None:
    state = BridgeState(0.0)
    for _ in range(20):
        state.joined()
        state.asked(again=False)
    assert state.task(1.0) == SET_UP
    state.opened(1.0, probes=False)
    assert state.task(1.5) == SERVE
    state.answered()
    assert state.task(1.5) == REST
    assert state.pause(1.5) == float("inf")


def test_a_way_that_was_checked_a_moment_ago_is_taken_for_good_but_not_by_who_lost_his_connection() -> None:
    state = BridgeState(0.0)
    state.opened(0.0, probes=False)
    state.joined()
    state.asked(again=False)
    assert state.task(FRESH_S) == SERVE
    assert state.task(FRESH_S + 0.1) == CHECK
    state.answered()
    state.asked(again=True)
    assert state.task(0.0) == CHECK
    state.checked(0.0)
    assert state.task(0.0) == SERVE


def test_a_failure_is_told_to_all_for_a_while_that_grows_to_a_bound() -> None:
    state = BridgeState(0.0)
    state.joined()
    now, holds = 0.0, []
    for _ in range(12):
        state.asked(again=False)
        assert state.task(now) == SET_UP
        state.failed(now)
        assert state.task(now) == REFUSE
        state.answered()
        until = now
        state.asked(again=True)
        while state.task(until) == REFUSE:
            until += 0.25
        state.answered()
        holds.append(until - now)
        now = until
    assert holds == sorted(holds)
    assert holds[-1] == MAX_HOLD_S


def test_it_probes_only_while_somebody_would_suffer_and_nothing_else_would_tell() -> None:
    for probes, users, task in [(True, 1, PROBE), (False, 1, REST), (True, 0, LEAVE)]:
        state = BridgeState(0.0)
        state.opened(0.0, probes=probes)
        for _ in range(users):
            state.joined()
        assert state.task(PROBE_S) == task
    state = BridgeState(0.0)
    state.joined()
    state.opened(0.0, probes=True)
    assert state.pause(1.0) == PROBE_S - 1
    state.lost()
    assert state.task(PROBE_S) == REST, "whoever needs it will ask"


def test_it_leaves_a_while_after_the_last_user() -> None:
    state = BridgeState(0.0)
    assert state.task(LINGER_S - 0.1) == REST
    state.joined()
    assert state.task(1000.0) == REST
    state.asked(again=False)
    state.left(1000.0, waiting=True)
    assert state.task(1000.0) == REST
    assert state.pause(1000.0) == LINGER_S
    assert state.task(1000.0 + LINGER_S) == LEAVE


def do(state: BridgeState, task: BridgeTask, now: float, *, works: bool) -> None:
    """What the bridge does."""
    if task in (CHECK, PROBE):
        state.checked(now)
    elif task == SET_UP and works:
        state.opened(now, probes=True)
    elif task == SET_UP:
        state.failed(now)
    elif task in (SERVE, REFUSE):
        assert state.up == (task == SERVE)
        state.answered()


EVENTS = st.lists(st.tuples(st.sampled_from(["join", "ask", "again", "leave", "die"]), st.floats(0, 20)), max_size=60)


@given(events=EVENTS, works=st.lists(st.booleans(), min_size=1))
def test_whoever_asks_is_answered_at_once_and_the_bridge_never_leaves_a_user(
    events: list[tuple[str, float]], works: list[bool]
) -> None:
    state, now, tries = BridgeState(0.0), 0.0, 0
    asking: list[bool] = []  # whether each user waits
    for event, pause in events:
        now += pause
        if event == "join":
            state.joined()
            asking.append(False)
        elif event in ("ask", "again") and False in asking:
            asking[asking.index(False)] = True
            state.asked(again=event == "again")
        elif event == "leave" and asking:
            state.left(now, waiting=asking.pop())
        elif event == "die":
            state.lost()
        for _ in range(3):  # check, set up, answer: never more
            task = state.task(now)
            assert task != PROBE or asking
            assert task != LEAVE or not asking
            if task in (SERVE, REFUSE):
                asking = [False] * len(asking)
            tries += task == SET_UP
            do(state, task, now, works=works[tries % len(works)])
        assert not any(asking)
        assert state.users == len(asking)
        assert state.task(now) in (REST, LEAVE)
