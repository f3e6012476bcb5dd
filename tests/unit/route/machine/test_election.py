"""The election table, every observation there is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.route.machine import election as e

ALL = list(itertools.product(e.LOCKS, e.RECORDS, e.CONNECTS))
NOBODY = (e.CONNECT_REFUSED, e.CONNECT_ENOENT)


Case = tuple[e.LockSeen, e.RecordSeen, e.ConnectSeen]


def decide(case: Case) -> e.Action:
    lock, record, connect = case
    return e.decide(lock=lock, record=record, connect=connect)


def test_there_is_an_action_for_everything() -> None:
    assert len(ALL) == 3 * 4 * 6
    assert {decide(case) for case in ALL} == set(e.ACTIONS)


@pytest.mark.parametrize("case", ALL, ids="-".join)
def test_invariants(case: Case) -> None:
    lock, record, connect = case
    action = decide(case)
    if action == e.START:
        assert lock == e.LOCK_OBTAINED, "only a lock in our hand permits it"
        assert connect in NOBODY, "and only where the kernel says that nobody listens"
        assert record != e.RECORD_FOREIGN, "and nobody on another kernel can be alive"
    if action == e.TAKE_LOCK:
        assert lock == e.LOCK_FREE
        assert connect in NOBODY
    if connect not in NOBODY:
        assert action not in (e.START, e.TAKE_LOCK, e.AVOID), "silence permits nothing"
    if connect == e.CONNECT_OK:
        assert action == e.CONNECT, "an owner answers for itself, whatever lock and record say"
    if connect in (e.CONNECT_EAGAIN, e.CONNECT_TIMEOUT):
        assert action == e.WAIT
    if connect in NOBODY and record != e.RECORD_FOREIGN:
        others = {decide((lock, other, connect)) for other in e.RECORDS if other != e.RECORD_FOREIGN}
        assert others == {action}, "a record is a hint, never a proof"
    if lock == e.LOCK_HELD:
        assert action not in (e.START, e.TAKE_LOCK)


@pytest.mark.parametrize(
    ("lock", "action"),
    [
        (e.LOCK_FREE, e.TAKE_LOCK),
        (e.LOCK_OBTAINED, e.START),
        (e.LOCK_HELD, e.WAIT),
    ],
)
@pytest.mark.parametrize("connect", NOBODY)
def test_nobody_listens(lock: e.LockSeen, connect: e.ConnectSeen, action: e.Action) -> None:
    assert e.decide(lock=lock, record=e.RECORD_ABSENT, connect=connect) == action
    assert e.decide(lock=lock, record=e.RECORD_FOREIGN, connect=connect) == e.AVOID


@given(st.lists(st.sampled_from(e.CONNECTS), min_size=1))
def test_any_sign_of_an_owner_outweighs_all_signs_of_none(outcomes: list[e.ConnectSeen]) -> None:
    found = e.strongest(outcomes)
    assert found in outcomes
    if found in NOBODY:
        assert set(outcomes) <= set(NOBODY)
    if e.CONNECT_OK in outcomes:
        assert found == e.CONNECT_OK


def test_nothing_dialled_is_nobody() -> None:
    assert e.strongest([]) == e.CONNECT_ENOENT


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["step", "die"])), max_size=60))
def test_one_starter_at_a_time_whatever_the_order(moves: list[tuple[int, str]]) -> None:
    """Four clients, any interleaving, deaths included: a broker is started only while no broker is."""
    holder: int | None = None
    started = 0
    locks = [e.LOCK_FREE] * 4
    for who, move in moves:
        if move == "die":
            holder = None if holder == who else holder
            locks[who] = e.LOCK_FREE
            continue
        connect = e.CONNECT_OK if started else e.CONNECT_ENOENT
        action = e.decide(lock=locks[who], record=e.RECORD_ABSENT, connect=connect)
        if action == e.TAKE_LOCK:
            locks[who] = e.LOCK_OBTAINED if holder is None else e.LOCK_HELD
            holder = who if holder is None else holder
            continue
        if action == e.START:
            assert holder == who
            started += 1
        locks[who] = e.LOCK_FREE
        holder = None if holder == who else holder
    assert started <= 1
