"""The lease protocol, explored to the end within stated bounds, on the real machines in lease/machine.

Each bound is a whole world: every interleaving of single IO operations, every pause, every late look. Printed: how many
states that were (`pytest -s`). docs/leases.md states the bounds; keep the two in step.
"""

from __future__ import annotations

import pytest

from mempalace_broker.lease.machine.acquire import LeaseAcquirer
from mempalace_broker.lease.machine.hold import Holding, LeaseHolder, Operation
from mempalace_broker.lease.machine.lease import VISIBILITY_DELAY_S, LeasePolicy, Listing, NodeKind, ObservedLease, Verb
from tests.model.explorer import Explored, explore
from tests.model.world import Bounds, World

HF, FF = (NodeKind.HOST, NodeKind.FOREIGN), (NodeKind.FOREIGN, NodeKind.FOREIGN)
# D = 1 tick, S > 2 D; both hosts' times as in the real policy: silence_s - D and S - D
FINE = LeasePolicy(silence_s=3, settle_s=3, poll_s=3, tries=1, steady_s=2, repair_s=2)
COARSE = LeasePolicy(
    silence_s=1, settle_s=1, poll_s=1, tries=1, steady_s=1, repair_s=1
)  # a tick is so long that everything is seen after it
ONCE = COARSE._replace(tries=0)  # an acquirer that was too late gives up, and starts again as another
SMALL = Bounds(HF, epochs=2, faults=0, beats=0, policy=FINE)


def search(bounds: Bounds, limit: int = 3_000_000, *, liveness: bool = True) -> Explored:
    found = explore(World(bounds), limit=limit, liveness=liveness)
    print(f"\n{'+'.join(bounds.kinds)} {bounds}: {found}")
    return found


def assert_proved(bounds: Bounds, limit: int = 3_000_000) -> None:
    found = search(bounds, limit)
    assert not found.violation, "\n".join((found.violation, *found.history))
    assert found.complete, f"more than {limit} states"
    assert not found.dead_ends, "nobody can own again after:\n" + "\n".join(found.dead_end)


QUICK = {
    "host and foreign, late looks": SMALL,
    "host that answers, and foreign, late looks": SMALL._replace(answers=True),
    "two foreign, late looks": SMALL._replace(kinds=FF),
    "two foreign, a crash and a person": SMALL._replace(
        kinds=FF, epochs=3, faults=1, late=0, policy=COARSE, tidies=False
    ),
    "host and foreign, a crash and a new start": SMALL._replace(
        starts=(2, 1), faults=1, late=0, policy=ONCE, tidies=False
    ),
    "host and foreign, a crash and heartbeats": SMALL._replace(
        epochs=3, faults=1, beats=1, late=0, policy=ONCE, tidies=False
    ),
    "host and foreign, a forged lease": SMALL._replace(forgeries=1, late=0, policy=ONCE, tidies=False),
    "host and foreign, two calls and a crash": SMALL._replace(calls=2, faults=1, late=0, policy=ONCE, tidies=False),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bounds", QUICK.values(), ids=QUICK)
def test_no_two_nodes_ever_write_and_somebody_can_always_own_again(bounds: Bounds) -> None:
    assert_proved(bounds)


DEEP = {
    "host and foreign, a crash, late looks": SMALL._replace(epochs=3, faults=1),
    "host and foreign, two calls, late looks": SMALL._replace(calls=2),
    "host and foreign, a forged lease and heartbeats": SMALL._replace(
        forgeries=1, beats=1, late=0, policy=ONCE, tidies=False
    ),
    "host and foreign, two calls, a forged lease and heartbeats": SMALL._replace(
        calls=2, forgeries=1, beats=1, late=0, policy=ONCE, tidies=False
    ),
    "two foreign, a crash, late looks": SMALL._replace(kinds=FF, epochs=3, faults=1),
    "host and foreign, a forged lease between": SMALL._replace(
        epochs=3, forgeries=1, beats=1, late=0, policy=ONCE, tidies=False
    ),
    "host that answers a forged lease, heartbeats": SMALL._replace(
        answers=True, forgeries=1, beats=1, late=0, policy=ONCE, tidies=False
    ),
    "host that answers, a crash and a new start": SMALL._replace(
        answers=True, starts=(2, 1), faults=1, late=0, policy=ONCE, tidies=False
    ),
    "host starts twice, a crash": SMALL._replace(starts=(2, 1), epochs=3, faults=1, late=0, policy=ONCE),
}
TWICE = SMALL._replace(starts=(2, 2), epochs=3, late=0, policy=ONCE)
THREE = SMALL._replace(kinds=(NodeKind.HOST, NodeKind.FOREIGN, NodeKind.FOREIGN), late=0, policy=ONCE)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bounds", DEEP.values(), ids=DEEP)
def test_deeper(bounds: Bounds) -> None:
    assert_proved(bounds, 12_000_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bounds", [TWICE, THREE], ids=["both start twice", "three nodes"])
def test_as_far_as_two_million_states(bounds: Bounds) -> None:
    """Breadth first: no history shorter than the depth that is printed breaks anything."""
    found = search(bounds, 2_000_000, liveness=False)
    assert not found.violation, "\n".join((found.violation, *found.history))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_names_that_are_removed_too_early_are_caught() -> None:
    """Found by this search: who sees neither the old name nor the new one creates an old number again."""
    bounds = TWICE._replace(hasty=True)
    assert search(bounds, 5_000_000, liveness=False).violation


# --- the checker has teeth: take one thing away, and it finds two writers


def _no_flag(self: LeaseHolder) -> LeaseHolder:
    return self._replace(step=Verb.LIST, operation=Operation.MARK_BUSY, outcome=None)


_listed = LeaseHolder._listed


def _no_probe(self: LeaseHolder, listing: Listing, before: float, after: float) -> LeaseHolder:
    return (
        self._replace(step=Verb.DONE, outcome=Holding.CLEAR)
        if self.operation is Operation.MARK_BUSY
        else _listed(self, listing, before, after)
    )


def _release_first(self: LeaseHolder, reason: str) -> LeaseHolder:
    return self._replace(step=Verb.WRITE, operation=Operation.FENCE, reason=reason, outcome=None)


def _ignore_busy(self: LeaseAcquirer, open_: list[ObservedLease], listing: Listing, now: float) -> LeaseAcquirer:
    return _decide(self, [seen._replace(busy=False) for seen in open_], listing, now)


_decide = LeaseAcquirer._decide
BEATS = Bounds(HF, epochs=2, faults=0, beats=1, late=0, policy=COARSE)
MUTANTS = {
    "no busy flag": (LeaseHolder, "mark_busy", _no_flag),
    "no look before a call goes in": (LeaseHolder, "_listed", _no_probe),
    "released before the engine is dead": (LeaseHolder, "fence", _release_first),
    "a busy owner taken for an idle one": (LeaseAcquirer, "_decide", _ignore_busy),
}


@pytest.mark.parametrize("kinds", [HF, FF], ids="+".join)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_protocol_with_a_piece_missing_is_caught(
    mutant: str, kinds: tuple[NodeKind, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    assert search(BEATS._replace(kinds=kinds), 300_000, liveness=False).violation


@pytest.mark.parametrize("bounds", [SMALL, BEATS], ids=["late looks", "coarse"])
def test_a_host_that_ignores_what_came_while_it_paused_is_caught(bounds: Bounds) -> None:
    careless = bounds._replace(policy=bounds.policy._replace(steady_s=9))
    assert search(careless, 300_000, liveness=False).violation


@pytest.mark.parametrize(("kinds", "settle"), [(HF, 0), (FF, 0), (FF, 2)], ids=str)
def test_a_settle_time_that_is_too_short_is_caught(kinds: tuple[NodeKind, ...], settle: int) -> None:
    """Between two foreign nodes not even S = 2 D will do: it must be longer."""
    policy = FINE._replace(settle_s=settle, poll_s=max(1, settle))
    assert search(SMALL._replace(kinds=kinds, policy=policy), 300_000, liveness=False).violation


def test_names_that_two_can_create_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    create = World._create

    def careless(self: World, state: object, i: int, g: int) -> tuple[bool, object]:
        return True, create(self, state, i, g)[1]  # type: ignore[arg-type]

    monkeypatch.setattr(World, "_create", careless)
    assert search(BEATS, 300_000, liveness=False).violation


def test_the_real_times_leave_the_settle_time_longer_than_two_delays() -> None:
    policy = LeasePolicy()
    assert policy.settle_s > 2 * VISIBILITY_DELAY_S
    assert policy.silence_s > policy.heartbeat_s + VISIBILITY_DELAY_S + policy.poll_s
    assert policy.steady_s < policy.silence_s - VISIBILITY_DELAY_S
    assert policy.repair_s <= policy.settle_s - VISIBILITY_DELAY_S
