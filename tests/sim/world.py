"""One seeded world: agents, bare clients, brokers, engines, and what befalls them. A seed is a history."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.supervisor import KILLED, Policy
from mempalace_broker.protocol.journal import whole_length
from mempalace_broker.protocol.palace import PalaceIdentity

from .broker import Broker
from .clients import Agent, Bare
from .clockwork import Loop
from .engine import Engine
from .history import History
from .palace import READS, WRITES, Disk

LIMITS = Limits(wait_s=4.0, run_s=3.0, init_s=3.0, session_calls=30)
POLICY = Policy(init_s=3.0, term_grace_s=0.3, orphan_grace_s=2.0, budget=4, window_s=8.0, stable_s=4.0, probe_s=1.5)
LONGEST = 4.0 + 3.0 + 3.0 + 5.0 + 0.5  # both limits, the start's, the shim's margin
QUIET_S = 12.0  # after the last answer: what still runs, runs out


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities: of a call (engine_crash, engine_hang, slow, garble), of a start (start_*, unstartable, no_broker),
    of a pause (park_fail).

    Counts, at most so many in one world: the rest.
    """

    engine_crash: float = 0.0
    engine_hang: float = 0.0
    slow: float = 0.1
    slow_s: float = 0.5
    garble: float = 0.0
    start_s: float = 0.0  # that a start takes longer, at most
    start_hang: float = 0.0
    start_crash: float = 0.0
    start_fail: float = 0.0
    unstartable: float = 0.0
    park_fail: float = 0.0
    no_broker: float = 0.0
    upgrades: int = 0
    mines: int = 2  # by mempalace's own command, beside the broker
    broker_kills: int = 0
    engine_kills: int = 0
    freezes: int = 0
    cuts: int = 0
    drains: int = 0
    agent_kills: int = 0
    jumps: int = 0
    idle: bool = False
    # bugs, for the tests of the checker
    forget_s: bool = False
    early_answer: bool = False
    mute: float = 0.0


CALM = Faults()
PROFILES: dict[str, Faults] = {
    "calm": CALM,
    "crashes": Faults(engine_crash=0.25, slow=0.2),
    "hangs": Faults(engine_hang=0.06, slow=0.3, slow_s=2.5, start_hang=0.1),
    "no start": Faults(start_crash=0.4, start_fail=0.2, unstartable=0.2, no_broker=0.3, broker_kills=1),
    "network": Faults(cuts=5, slow=0.3, agent_kills=1),
    "kills": Faults(broker_kills=3, engine_kills=2, slow=0.3, slow_s=1.0),
    "leaving": Faults(drains=3, idle=True, slow=0.3, slow_s=1.5, cuts=1),
    "frozen": Faults(freezes=4, jumps=1, slow=0.2),
    "parked": Faults(mines=8, park_fail=0.1, start_crash=0.1, start_hang=0.05, engine_kills=1, cuts=1),
    "upgrade": Faults(upgrades=3, engine_crash=0.2, broker_kills=1),
    "all": Faults(
        engine_crash=0.08, engine_hang=0.02, slow=0.2, slow_s=2.0, garble=0.02, start_crash=0.1, start_hang=0.05,
        unstartable=0.05, no_broker=0.05, park_fail=0.1, mines=4,
        upgrades=1, broker_kills=2, engine_kills=1, freezes=2, cuts=3, drains=1,
        agent_kills=1, jumps=1, idle=True,
    ),
}  # fmt: skip


class World:
    """One seeded history: its processes, its disk, and what happens to them."""

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.profile = "given"
        if faults is None:
            self.profile = list(PROFILES)[seed % len(PROFILES)]
            faults = PROFILES[self.profile]
        self.faults = faults
        self.loop = Loop()
        self.disk = Disk()
        self.history = History()
        self.identity = PalaceIdentity("/p/palace", "/p/graph", "default")
        self.limits = replace(LIMITS, park_s=0.3 if self.profile == "parked" else self.rng.choice((0.0, 1.0)))
        self.policy = POLICY
        self.stranger = ""  # who has mempalace's write lock, if it is no engine
        self.idle_s = 2.0 if faults.idle else 0.0
        self.broker: Broker | None = None
        self.upgraded = 0
        self.yields = self.rng.random() < 0.5  # whether this mempalace lets calls in between two files of a mine
        self.foreign = self.rng.random() < 0.5  # whether the palace lies on another kernel's disk
        self._owner: Engine | None = None
        self.brokers = self.engines = self.parks = self.mined = self._ids = 0
        self.agents = [Agent(self, f"agent{n}", f"s{seed % 1000}n{n}") for n in range(self.rng.randint(1, 4))]
        self.bare = [Bare(self, f"bare{n}") for n in range(self.rng.randint(0, 1))]
        self._until = self.loop.now
        self._script()
        self._befall()

    # -- processes

    def start_broker(self) -> None:
        """A shim starts a broker; the owner lock lets one live."""
        if self.broker is None:
            self.brokers += 1
            self.broker = broker = Broker.__new__(Broker)
            broker.__init__(self, self.brokers)  # type: ignore[misc]  # it must be known before its first turn

    def broker_gone(self, broker: Broker) -> None:
        """Its process ended; the owner lock is free."""
        broker.alive = False
        if self.broker is broker:
            self.broker = None

    def orphan(self) -> Engine | None:
        """Who holds engine.lock."""
        return self._owner

    def new_engine(self, broker: Broker) -> Engine:
        """A child takes engine.lock and opens the journal: half an entry at its end is cut off."""
        assert self._owner is None, "two engines"
        self.disk.journal = self.disk.journal[: whole_length(self.disk.journal)]
        self.engines += 1
        self._owner = Engine(self, broker, self.engines)
        return self._owner

    def engine_gone(self, engine: Engine) -> None:
        """Its lock is free."""
        if self._owner is engine:
            self._owner = None

    # -- what the agents do

    def _script(self) -> None:
        rng = self.rng
        for agent in self.agents:
            when = rng.random() * 2
            if rng.random() < 0.8:
                self._say(when, agent, "initialize", {"protocolVersion": "2025-06-18"})
                self._note(when + 0.1, agent, "notifications/initialized", {})
                if rng.random() < 0.5:
                    self._say(when + 0.1, agent, "tools/list", {})
            for _ in range(rng.randint(1, 10)):
                when += rng.random() * (0.01 if rng.random() < 0.6 else 3.0)
                self._call(when, agent)
            if rng.random() < 0.2:
                self._at(when + 0.001, agent.eof)
        for bare in self.bare:
            when = 1.0 + rng.random() * 3
            for _ in range(rng.randint(1, 5)):
                when += rng.random()
                self._call(when, bare)

    def _call(self, when: float, who: Agent | Bare) -> None:
        rng = self.rng
        tool = rng.choice(WRITES if rng.random() < 0.7 else READS)
        arguments: dict[str, Any] = {"token": f"t{self._ids}"}
        if tool == "mempalace_event_wait":
            arguments["timeout_ms"] = 2000
        if tool == "mempalace_delete_drawer" and self._ids:
            arguments["token"] = f"t{rng.randrange(self._ids)}"
        id_ = self._say(when, who, "tools/call", {"name": tool, "arguments": arguments})
        if rng.random() < 0.06:
            self._note(when + rng.random() * 0.5, who, "notifications/cancelled", {"requestId": id_})

    def _say(self, when: float, who: Agent | Bare, method: str, params: dict[str, Any]) -> int | str:
        self._ids += 1
        id_: int | str = self._ids if self._ids % 2 else f"{self._ids - 1}"
        request = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        self._at(when, lambda: who.say(request))
        return id_

    def _note(self, when: float, who: Agent | Bare, method: str, params: dict[str, Any]) -> None:
        self._at(when, lambda: who.say({"jsonrpc": "2.0", "method": method, "params": params}))

    def _at(self, when: float, step: Any) -> None:
        self._until = max(self._until, 1000.0 + when)
        self.loop.after(when, step)

    # -- what befalls them

    def _befall(self) -> None:
        rng, faults = self.rng, self.faults
        span = self._until - 1000.0 + 2.0
        for count, step in (
            (faults.broker_kills, self._kill_broker),
            (faults.engine_kills, self._kill_engine),
            (faults.freezes, self._freeze),
            (faults.cuts, self._cut),
            (faults.drains, self._drain),
            (faults.agent_kills, self._kill_agent),
            (faults.jumps, self._jump),
            (faults.upgrades, self._upgrade),
            (faults.mines, self._mine),
        ):
            for _ in range(rng.randint(0, count)):
                self.loop.after(rng.random() * span, step)
        self.loop.after(span + 1.0, self._peace)

    def _peace(self) -> None:
        """From now on nothing breaks any more: the world has to recover."""
        bugs = self.faults
        self.faults = replace(CALM, forget_s=bugs.forget_s, early_answer=bugs.early_answer, mute=bugs.mute)

    def _kill_broker(self) -> None:
        if self.broker is not None:
            owner = self._owner
            self.broker.kill()
            if owner is not None and self.rng.random() < 0.4:
                owner.die("signal 9, with its broker")

    def _kill_engine(self) -> None:
        if self._owner is not None:
            self._owner.die(KILLED)

    def _freeze(self) -> None:
        seconds = self.rng.choice((0.1, 1.0, 5.0))
        victim = self.rng.choice([self.broker, self._owner, *self.agents])
        if victim is not None:
            victim.freeze(seconds)
            for agent in self.agents:
                if victim is agent:
                    self.history.slack[agent.name] = self.history.slack.get(agent.name, 0.0) + seconds

    def _everybody(self) -> list[Agent | Bare]:
        return [*self.agents, *self.bare]

    def _cut(self) -> None:
        self.rng.choice(self._everybody()).cut()

    def _drain(self) -> None:
        broker = self.broker
        if broker is not None:
            at_once = self.rng.random() < 0.3

            def leave() -> None:
                broker.protocol.drain(self.loop.now, "told to", at_once=at_once)
                broker.turn()

            broker.deliver(leave)

    def _kill_agent(self) -> None:
        self.rng.choice(self._everybody()).kill()

    def _jump(self) -> None:
        self.loop.jump(self.rng.choice((1.0, 30.0)))

    def _upgrade(self) -> None:
        self.upgraded += 1

    def _mine(self) -> None:
        """mempalace's own command gets the palace where no engine has it open, and is refused elsewhere."""
        if self.stranger or (self._owner is not None and self._owner.has_palace):
            return
        self.stranger = "pid 4711 (mempalace mine)"
        self.loop.after(self.rng.choice((0.1, 1.0, 6.0)) * self.rng.random(), self._mined)

    def _mined(self) -> None:
        self.stranger = ""
        self.mined += 1

    # -- the run

    def run(self, longest: float = LONGEST) -> list[str]:
        """Let it all happen, then name the rules that were broken. `longest`: seconds within which an answer is due."""
        history = self.history
        self.loop.run(self._until + 0.001, lambda: False)
        self.loop.run(self.loop.now + 300.0, lambda: history.open <= 0)
        self.loop.run(self.loop.now + QUIET_S, lambda: False)
        return history.faults(self.disk, longest + self.loop.jumped)


def check(seed: int, faults: Faults | None = None) -> list[str]:
    """Run one history."""
    return World(seed, faults).run()
