"""Seeded histories of the whole: real protocols of broker and shims, a model engine, and every fault they may meet.

pytest tests/sim --sim-seed=N     or MPB_SIM_SEED=N: play history N again
MPB_SIM_RUNS=N                    as many histories; MPB_SIM_FROM: the first seed
"""

from __future__ import annotations

import os

import pytest

from tests.sim.world import PROFILES, World

RUNS = int(os.environ.get("MPB_SIM_RUNS", "600"))
FIRST = int(os.environ.get("MPB_SIM_FROM", "0"))
SHARDS = len(PROFILES)


def play(seed: int) -> None:
    world = World(seed)
    try:
        broken = world.run()
    except Exception as exc:
        exc.add_note(f"history {seed} ({world.profile}); play it again: pytest tests/sim --sim-seed={seed}")
        raise
    text = "\n".join(broken)
    assert not broken, f"history {seed} ({world.profile}); again with: pytest tests/sim --sim-seed={seed}\n{text}"


@pytest.fixture
def one_seed(request: pytest.FixtureRequest) -> int | None:
    given = request.config.getoption("--sim-seed", default=None)
    if given is None and os.environ.get("MPB_SIM_SEED"):
        given = int(os.environ["MPB_SIM_SEED"])
    assert given is None or isinstance(given, int)
    return given


@pytest.mark.timeout(0)
@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_history_keeps_the_rules(profile: str, one_seed: int | None) -> None:
    shard = list(PROFILES).index(profile)
    if one_seed is None:
        for seed in range(FIRST + shard, FIRST + RUNS, SHARDS):
            play(seed)
    elif one_seed % SHARDS == shard:
        play(one_seed)


def test_a_seed_is_a_history() -> None:
    def trace(seed: int) -> list[object]:
        world = World(seed)
        world.run()
        return [(asked.when, asked.answers, asked.ran) for asked in world.history.requests.values()]

    for seed in range(5, 5 + SHARDS):
        assert trace(seed) == trace(seed)


def test_the_worlds_are_rich_enough() -> None:
    """The faults do happen, and the agents get every kind of answer: else the rules would hold for nothing."""
    codes: set[int | None] = set()
    engines = brokers = twice = parks = mined = 0
    for seed in range(120):
        world = World(seed)
        world.run()
        codes |= {asked.code for asked in world.history.requests.values()}
        engines += world.engines
        brokers += world.brokers
        parks += world.parks
        mined += world.mined
        twice += sum(len(asked.ran) > 1 for asked in world.history.requests.values())
    assert codes >= {0, -32010, -32011, -32012, -32014}
    assert engines > 2 * 120
    assert brokers > 120
    assert parks > 60
    assert mined > 30
    assert twice > 5
