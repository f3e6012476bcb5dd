"""Eight sessions that never rest, and an engine that is killed every six seconds for a minute.

As long as an engine gets ready at all, no call is refused and none fails fast; only a write that was under way may end
as "outcome unknown". pytest tests/sim/test_kills.py --sim-seed=N plays one history again.
"""

from __future__ import annotations

import os

import pytest

from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.supervisor import Policy
from mempalace_broker.errors import OUTCOME_UNKNOWN
from tests.sim.clients import Agent
from tests.sim.history import Asked
from tests.sim.palace import READ, TOOLS
from tests.sim.world import Faults, World

RUNS = int(os.environ.get("MPB_SIM_RUNS", "600")) // 20
SESSIONS, MINUTE_S, EVERY_S = 8, 60.0, 6.0
LONGEST = 60.0 + 60.0 + 5.0


class Siege(World):
    """The limits and the policy of a real broker. `start_s`: how long an engine takes to get ready, at most."""

    def __init__(self, seed: int) -> None:
        self.start_s = (0.0, 2.0, 5.5)[seed % 3]
        super().__init__(seed, Faults(start_s=self.start_s))

    def _script(self) -> None:
        self.limits, self.policy, self.stranger = Limits(park_s=0.0), Policy(), ""
        self.agents = [Agent(self, f"agent{n}", f"s{self.seed}n{n}") for n in range(SESSIONS)]
        self.bare = []
        for agent in self.agents:
            when = self.rng.random()
            while when < MINUTE_S:
                self._call(when, agent)
                when += self.rng.random() * 3.0

    def _befall(self) -> None:
        for n in range(1, int(MINUTE_S / EVERY_S) + 1):
            self.loop.after(n * EVERY_S, self._kill_engine)
        self.loop.after(self._until - 1000.0 + 1.0, self._peace)


def complaint(asked: Asked) -> str:
    if asked.code in (0, None) or (asked.code == OUTCOME_UNKNOWN and TOOLS[asked.tool][0] != READ):
        return ""
    return f"{asked.tool} at {asked.when:.1f} s was answered {asked.answers[0]}"


@pytest.mark.timeout(0)
def test_a_kill_every_six_seconds_costs_time_and_nothing_else(request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("--sim-seed", default=None)
    unknown = served = 0
    for seed in [given] if given is not None else range(RUNS):
        world = Siege(seed)
        broken = world.run(LONGEST)
        asked = list(world.history.requests.values())
        broken += filter(None, map(complaint, asked))
        assert not broken, f"seed {seed}, {world.start_s} s: " + "\n".join(broken[:20])
        assert world.engines > MINUTE_S / EVERY_S / 2
        unknown += sum(request.code == OUTCOME_UNKNOWN for request in asked)
        served += sum(request.code == 0 for request in asked)
    assert served > 100 * unknown, "only what was under way at a kill"
