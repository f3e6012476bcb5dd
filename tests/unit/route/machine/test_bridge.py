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
    keeper = BridgeState(0.0)
    for _ in range(20):
        keeper.joined()
        keeper.asked(again=False)
    assert keeper.task(1.0) == SET_UP
    keeper.opened(1.0, probes=False)
    assert keeper.task(1.5) == SERVE
    keeper.answered()
    assert keeper.task(1.5) == REST
    assert keeper.pause(1.5) == float("inf")


def test_a_way_that_was_checked_a_moment_ago_is_taken_for_good_but_not_by_who_lost_his_connection() -> None:
    keeper = BridgeState(0.0)
    keeper.opened(0.0, probes=False)
    keeper.joined()
    keeper.asked(again=False)
    assert keeper.task(FRESH_S) == SERVE
    assert keeper.task(FRESH_S + 0.1) == CHECK
    keeper.answered()
    keeper.asked(again=True)
    assert keeper.task(0.0) == CHECK
    keeper.checked(0.0)
    assert keeper.task(0.0) == SERVE


def test_a_failure_is_told_to_all_for_a_while_that_grows_to_a_bound() -> None:
    keeper = BridgeState(0.0)
    keeper.joined()
    now, holds = 0.0, []
    for _ in range(12):
        keeper.asked(again=False)
        assert keeper.task(now) == SET_UP
        keeper.failed(now)
        assert keeper.task(now) == REFUSE
        keeper.answered()
        until = now
        keeper.asked(again=True)
        while keeper.task(until) == REFUSE:
            until += 0.25
        keeper.answered()
        holds.append(until - now)
        now = until
    assert holds == sorted(holds)
    assert holds[-1] == MAX_HOLD_S


def test_it_probes_only_while_somebody_would_suffer_and_nothing_else_would_tell() -> None:
    for probes, users, task in [(True, 1, PROBE), (False, 1, REST), (True, 0, LEAVE)]:
        keeper = BridgeState(0.0)
        keeper.opened(0.0, probes=probes)
        for _ in range(users):
            keeper.joined()
        assert keeper.task(PROBE_S) == task
    keeper = BridgeState(0.0)
    keeper.joined()
    keeper.opened(0.0, probes=True)
    assert keeper.pause(1.0) == PROBE_S - 1
    keeper.lost()
    assert keeper.task(PROBE_S) == REST, "whoever needs it will ask"


def test_it_leaves_a_while_after_the_last_user() -> None:
    keeper = BridgeState(0.0)
    assert keeper.task(LINGER_S - 0.1) == REST
    keeper.joined()
    assert keeper.task(1000.0) == REST
    keeper.asked(again=False)
    keeper.left(1000.0, waiting=True)
    assert keeper.task(1000.0) == REST
    assert keeper.pause(1000.0) == LINGER_S
    assert keeper.task(1000.0 + LINGER_S) == LEAVE


def do(keeper: BridgeState, task: BridgeTask, now: float, *, works: bool) -> None:
    """What the bridge does."""
    if task in (CHECK, PROBE):
        keeper.checked(now)
    elif task == SET_UP and works:
        keeper.opened(now, probes=True)
    elif task == SET_UP:
        keeper.failed(now)
    elif task in (SERVE, REFUSE):
        assert keeper.up == (task == SERVE)
        keeper.answered()


EVENTS = st.lists(st.tuples(st.sampled_from(["join", "ask", "again", "leave", "die"]), st.floats(0, 20)), max_size=60)


@given(events=EVENTS, works=st.lists(st.booleans(), min_size=1))
def test_whoever_asks_is_answered_at_once_and_the_bridge_never_leaves_a_user(
    events: list[tuple[str, float]], works: list[bool]
) -> None:
    keeper, now, tries = BridgeState(0.0), 0.0, 0
    asking: list[bool] = []  # per user: does it wait
    for event, pause in events:
        now += pause
        if event == "join":
            keeper.joined()
            asking.append(False)
        elif event in ("ask", "again") and False in asking:
            asking[asking.index(False)] = True
            keeper.asked(again=event == "again")
        elif event == "leave" and asking:
            keeper.left(now, waiting=asking.pop())
        elif event == "die":
            keeper.lost()
        for _ in range(3):  # check, set up, answer: never more
            task = keeper.task(now)
            assert task != PROBE or asking
            assert task != LEAVE or not asking
            if task in (SERVE, REFUSE):
                asking = [False] * len(asking)
            tries += task == SET_UP
            do(keeper, task, now, works=works[tries % len(works)])
        assert not any(asking)
        assert keeper.users == len(asking)
        assert keeper.task(now) in (REST, LEAVE)
