"""Dialogues with the machine that holds a lease."""

from __future__ import annotations

from mempalace_broker.lease.machine.hold import Holding, LeaseHolder
from mempalace_broker.lease.machine.lease import LeaseAction, LeaseState, Listing, NodeKind, Verb


def run(holder: LeaseHolder, *results: Listing | bool | None) -> tuple[LeaseHolder, list[LeaseAction]]:
    """Carry out an operation with these results; the machine and what it did."""
    did = []
    for result in results:
        assert holder.step is not Verb.DONE
        did.append(holder.action)
        holder = holder.advance(result)
    assert holder.step is Verb.DONE
    return holder, did


ALONE = Listing((5,))
HOLDER = LeaseHolder(5, NodeKind.FOREIGN, 2)


def test_the_flag_is_written_before_the_look_and_only_once() -> None:
    holder, did = run(HOLDER.mark_busy(), True, ALONE)
    assert holder.outcome is Holding.CLEAR
    assert did == [LeaseAction(Verb.WRITE, 5, LeaseState.ACTIVE, 3, True), LeaseAction(Verb.LIST, 5)]
    again, did = run(holder.mark_busy(), ALONE)
    assert again.outcome is Holding.CLEAR
    assert [do.verb for do in did] == [Verb.LIST]
    idle, did = run(again.mark_idle(), True)
    assert did == [LeaseAction(Verb.WRITE, 5, LeaseState.ACTIVE, 4, False)]
    assert not idle.busy
    assert idle.mark_idle() == idle


def test_a_heartbeat_keeps_the_flag_and_notices_a_request() -> None:
    busy, _ = run(HOLDER.mark_busy(), True, ALONE)
    holder, did = run(busy.renew(), Listing((5,), requested=frozenset({5})), True)
    assert did[-1] == LeaseAction(Verb.WRITE, 5, LeaseState.ACTIVE, 4, True)
    assert holder.outcome is Holding.HANDOVER
    deaf, _ = run(HOLDER._replace(kind=NodeKind.HOST).renew(), Listing((5,), requested=frozenset({5})), True)
    assert deaf.outcome is Holding.CLEAR
    other, _ = run(HOLDER.renew(), Listing((5,), requested=frozenset({4})), True)
    assert other.outcome is Holding.CLEAR


def test_every_bad_sign_fences_and_the_engine_goes_first() -> None:
    busy, _ = run(HOLDER.mark_busy(), True, ALONE)
    for listing in (Listing((5, 6)), Listing(()), Listing((5,), gone=frozenset({(5, 1)})), None):
        holder, did = run(busy.renew(), listing, True, True)
        assert [do.verb for do in did] == [Verb.LIST, Verb.KILL, Verb.WRITE]
        assert did[-1].state is LeaseState.RELEASED
        assert holder.outcome is Holding.FENCED
        assert holder.over
        assert holder.mark_busy().outcome is Holding.FENCED
    holder, did = run(HOLDER.mark_busy(), False, True, True)
    assert [do.verb for do in did] == [Verb.WRITE, Verb.KILL, Verb.WRITE]
    assert holder.over


def test_an_engine_that_does_not_die_is_never_called_released() -> None:
    busy, _ = run(HOLDER.mark_busy(), True, ALONE)
    holder, did = run(busy.renew(), Listing((5, 6)), False)
    assert [do.verb for do in did] == [Verb.LIST, Verb.KILL]
    assert holder.over


def test_leaving_releases_once() -> None:
    holder, did = run(HOLDER.release(), True)
    assert did == [LeaseAction(Verb.WRITE, 5, LeaseState.RELEASED, 3, False)]
    assert holder.over
    assert holder.release() == holder
    assert holder.renew() == holder
