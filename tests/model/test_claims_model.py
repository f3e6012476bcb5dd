"""The claim protocol, explored to the end within stated bounds, on the real machines of lease/machine/lease.py.

Each bound is a whole world: every interleaving of single IO operations, every pause, every late look. Printed: how many
states that were (`pytest -s`). docs/claims.md states the bounds; keep the two in step.
"""

from __future__ import annotations

import pytest

from mempalace_broker.lease.machine import lease as claims
from mempalace_broker.lease.machine.lease import FOREIGN, HOST, Claimant, Owner, Rules
from tests.model.explorer import Explored, explore
from tests.model.world import Bounds, World

HF, FF = (HOST, FOREIGN), (FOREIGN, FOREIGN)
FINE = Rules(silence_s=1, settle_s=3, poll_s=3, tries=1)  # D = 1 tick, S > 2 D
COARSE = Rules(silence_s=1, settle_s=1, poll_s=1, tries=1)  # a tick is so long that everything is seen after it
ONCE = COARSE._replace(tries=0)  # a claimant that was too late gives up, and starts again as another
SMALL = Bounds(HF, generations=2, faults=0, beats=0, rules=FINE)


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
    "two foreign, late looks": SMALL._replace(kinds=FF),
    "two foreign, a crash and a person": SMALL._replace(
        kinds=FF, generations=3, faults=1, late=0, rules=COARSE, tidies=False
    ),
    "host and foreign, a crash and a new start": SMALL._replace(
        starts=(2, 1), faults=1, late=0, rules=ONCE, tidies=False
    ),
    "host and foreign, a crash and heartbeats": SMALL._replace(
        generations=3, faults=1, beats=1, late=0, rules=ONCE, tidies=False
    ),
}


@pytest.mark.parametrize("bounds", QUICK.values(), ids=QUICK)
def test_no_two_nodes_ever_write_and_somebody_can_always_own_again(bounds: Bounds) -> None:
    assert_proved(bounds)


DEEP = {
    "host and foreign, a crash, late looks": SMALL._replace(generations=3, faults=1),
    "two foreign, a crash, late looks": SMALL._replace(kinds=FF, generations=3, faults=1),
    "host starts twice, a crash": SMALL._replace(starts=(2, 1), generations=3, faults=1, late=0, rules=ONCE),
}
TWICE = SMALL._replace(starts=(2, 2), generations=3, late=0, rules=ONCE)
THREE = SMALL._replace(kinds=(HOST, FOREIGN, FOREIGN), late=0, rules=ONCE)


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


def _no_flag(self: Owner) -> Owner:
    return self._replace(step=claims.LIST, goal="need", verdict="")


_looked = Owner._looked


def _no_probe(self: Owner, listing: claims.Listing) -> Owner:
    return self._replace(step="", verdict=claims.CLEAR) if self.goal == "need" else _looked(self, listing)


def _release_first(self: Owner, why: str) -> Owner:
    return self._replace(step=claims.WRITE, goal=claims.FENCED, why=why, verdict="")


def _ignore_busy(self: Claimant, open_: list[claims.Seen], top: int, now: float) -> Claimant:
    return _decide(self, [seen._replace(busy=False) for seen in open_], top, now)


_decide = Claimant._decide
BEATS = Bounds(HF, generations=2, faults=0, beats=1, late=0, rules=COARSE)
MUTANTS = {
    "no busy flag": (Owner, "need", _no_flag),
    "no look before a call goes in": (Owner, "_looked", _no_probe),
    "released before the engine is dead": (Owner, "fence", _release_first),
    "a busy owner taken for an idle one": (Claimant, "_decide", _ignore_busy),
}


@pytest.mark.parametrize("kinds", [HF, FF], ids="+".join)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_protocol_with_a_piece_missing_is_caught(
    mutant: str, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    assert search(BEATS._replace(kinds=kinds), 300_000, liveness=False).violation


@pytest.mark.parametrize(("kinds", "settle"), [(HF, 0), (FF, 0), (FF, 2)], ids=str)
def test_a_settle_time_that_is_too_short_is_caught(kinds: tuple[str, ...], settle: int) -> None:
    """Between two foreign nodes not even S = 2 D will do: it must be longer."""
    rules = FINE._replace(settle_s=settle, poll_s=max(1, settle))
    assert search(SMALL._replace(kinds=kinds, rules=rules), 300_000, liveness=False).violation


def test_names_that_two_can_create_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    create = World._create

    def careless(self: World, state: object, i: int, g: int) -> tuple[bool, object]:
        return True, create(self, state, i, g)[1]  # type: ignore[arg-type]

    monkeypatch.setattr(World, "_create", careless)
    assert search(BEATS, 300_000, liveness=False).violation


def test_the_real_times_leave_the_settle_time_longer_than_two_delays() -> None:
    rules = Rules()
    assert rules.settle_s > 2 * claims.VISIBLE_S
    assert rules.silence_s > rules.beat_s + claims.VISIBLE_S + rules.poll_s
