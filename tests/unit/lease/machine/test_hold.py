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
        holder = holder.advance(result, 0.0, 0.0)
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


def test_a_host_that_looked_a_moment_ago_needs_no_other_look() -> None:
    policy = HOLDER.policy
    host = HOLDER._replace(kind=NodeKind.HOST, written_at=0.0, looked_at=0.0)
    busy, _ = run(host.mark_busy(), True, ALONE)
    assert busy.is_certain(0.0)
    assert busy.is_certain(policy.repair_s - 0.01)
    assert not busy.is_certain(policy.repair_s)
    assert busy._replace(looked_at=9.0).is_certain(policy.steady_s - 0.01)
    assert not busy._replace(looked_at=9.0).is_certain(policy.steady_s)
    assert not host.is_certain(0.0), "nobody was told yet that a call may be in the engine"
    assert not busy._replace(kind=NodeKind.FOREIGN).is_certain(0.0)
    assert not busy._replace(paused=True).is_certain(0.0)
    assert not busy._replace(over=True).is_certain(0.0)
    assert not busy.renew().is_certain(0.0)


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


def test_a_steady_host_ignores_what_nobody_can_have_made() -> None:
    host = LeaseHolder(5, NodeKind.HOST, 2, written_at=0.0, looked_at=0.0)
    for listing in (Listing((5, 6)), Listing((5,), gone=frozenset({(5, 3)}))):
        holder, did = run(host.mark_busy(), True, listing)
        assert holder.outcome is Holding.CLEAR
        assert [do.verb for do in did] == [Verb.WRITE, Verb.LIST]
    late = host.mark_busy().advance(True, 3.0, 3.0)
    assert late.advance(Listing((5, 6)), 3.0, 3.0).step is Verb.KILL
    stuck = host.renew().advance(Listing((5, 6)), 2.0, 3.0)
    assert stuck.step is Verb.KILL, "it paused before the look"
    looked = host.renew().advance(Listing((5,)), 2.9, 2.9).advance(True, 2.9, 4.0)
    assert looked.renew().advance(Listing((5, 6)), 4.0, 4.0).step is Verb.KILL, "it paused before the write"
    assert looked.renew().advance(Listing((5,)), 4.0, 4.0).advance(True, 4.0, 4.0).paused is False


def test_a_host_puts_its_name_back_in_time_or_never() -> None:
    host = LeaseHolder(5, NodeKind.HOST, 2, written_at=0.0, looked_at=0.0)
    holder, did = run(host.renew(), None, True, True)
    assert [do.verb for do in did] == [Verb.LIST, Verb.CREATE, Verb.WRITE]
    assert holder.outcome is Holding.CLEAR
    late = host.renew().advance(Listing(()), 1.0, 1.0).advance(True, 1.0, 2.0)
    assert late.step is Verb.KILL
    assert host.renew().advance(Listing(()), 1.0, 1.0).advance(False, 1.0, 1.0).step is Verb.KILL
