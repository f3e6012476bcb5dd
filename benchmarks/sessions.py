"""How many sessions one owner carries: a queueing model, fitted to measured service times, and a run that checks it.

A session thinks, calls, waits for the answer, thinks again. Calls that touch the drawers go through one lane, one at a
time, first in, first out; all others beside it. The model is that network: closed, one server for the lane, service
times drawn from those that were measured. A call of the lane is measured with the lane never idle: then embedding is
done ahead, and part of what a single call takes is not the lane's. The model is simulated for any number of sessions,
and compared with `CHECKED` real ones.

    python3 benchmarks/sessions.py --engine newest
"""

from __future__ import annotations

import heapq
import os
import random
import selectors
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import fmt, median, percentile
from benchmarks.driver import Outcome, Session, closed_loop, serial
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, main, say
from benchmarks.world import BROKER, World

CHECKED = 200  # real sessions
THINK_S = (10.0, 4.0)  # of the check: with the lane partly loaded, and overloaded
AGENT_S = 30.0  # between two calls of a working agent
PLANNED = (10, 50, 100, 200, 500, 1000, 2000)
WAIT_S = 60.0  # how long a call may wait
ERROR = 0.35  # of the model's mean answer
# tools of the lane and how often; of three calls to the drawers, one goes elsewhere
LANE = (("search", 8), ("get_drawer", 2), ("add_drawer", 3), ("diary_write", 1))
BESIDE = "kg_query"
SHARE_BESIDE = 0.25


def line_of(tool: str, rng: random.Random) -> bytes:
    """Return a call with a new text, so that its cost is typical."""
    text = f"{texts.words(rng, 12)} {rng.random()}"
    n = rng.randrange(900)
    arguments: dict[str, dict[str, object]] = {
        "search": {"query": text},
        "get_drawer": {"drawer_id": f"drawer_w{n % 7}_r{n % 13}_{n:024d}"},
        "add_drawer": {"wing": f"w{n % 7}", "room": "r", "content": text},
        "diary_write": {"agent_name": f"agent{n % 20}", "entry": text},
        "kg_query": {"entity": "palace"},
    }
    return driver.call(1, tool, arguments[tool])


def any_tool(rng: random.Random) -> str:
    """A tool of the mix."""
    if rng.random() < SHARE_BESIDE:
        return BESIDE
    return rng.choices([tool for tool, _ in LANE], [weight for _, weight in LANE])[0]


# -- the model -----------------------------------------------------------------------------------------


@dataclass
class Model:
    """Measured times, in seconds.

    Attributes:
        lane: samples of what a call keeps the lane for. ahead: what it takes before and after that, alone.
        beside: samples of a call that does not go through the lane.
    """

    lane: list[float]
    ahead: float
    beside: list[float]

    @property
    def lane_s(self) -> float:
        return sum(self.lane) / len(self.lane)

    def full_at(self, think_s: float) -> float:
        """The number of sessions from which the lane is never idle: the asymptote of a closed network."""
        per_call = (1 - SHARE_BESIDE) * self.lane_s
        return (think_s + self.ahead + per_call) / per_call

    def simulate(self, sessions: int, think_s: float, calls: int, seed: int = 1) -> list[float]:
        """Simulate so many calls; return their answer times."""
        rng = random.Random(seed)
        free_at = 0.0
        answers: list[float] = []
        due = [(rng.expovariate(1 / think_s), n) for n in range(sessions)]
        heapq.heapify(due)
        while len(answers) < calls:
            now, session = heapq.heappop(due)  # the lane takes calls in the order in which they come
            if rng.random() < SHARE_BESIDE:
                ended = now + rng.choice(self.beside)
            else:
                free_at = max(free_at, now) + rng.choice(self.lane)
                ended = free_at + self.ahead
            answers.append(ended - now)
            heapq.heappush(due, (ended + rng.expovariate(1 / think_s), session))
        return answers[calls // 5 :]  # the beginning is idle


def fit(sessions: Sequence[Session], rng: random.Random, pause_s: float, seconds: float, rounds: int) -> Model:
    """Measure service times: of single calls, and of the lane while it is never idle. No text may come twice.

    Args:
        pause_s: before each single call, as long as between two calls of the load: processes that have slept find
            their code and data out of the processor's caches, which costs a call up to several ms.
    """
    alone = {tool: [_single(tool, sessions, rng, pause_s) for _ in range(rounds)] for tool in [*dict(LANE), BESIDE]}
    tools = [tool for tool, weight in LANE for _ in range(weight)]
    busy = closed_loop(sessions, lambda _i, _n: line_of(rng.choice(tools), rng), seconds)
    single = [value for tool in tools for value in rng.sample(alone[tool], len(alone[tool]) // 2)]
    mean, lane_s = sum(single) / len(single), 1 / busy.rate
    scaled = [value * lane_s / mean for value in single]
    return Model(scaled, max(0.0, mean - lane_s), alone[BESIDE])


def _single(tool: str, sessions: Sequence[Session], rng: random.Random, pause_s: float) -> float:
    time.sleep(pause_s)
    return serial(rng.choice(sessions), [line_of(tool, rng)]).all[0]  # by any session: most have slept for long


# -- real sessions -------------------------------------------------------------------------------------


def thinking(sessions: Sequence[Session], think_s: float, seconds: float, make: Callable[[], bytes]) -> Outcome:
    """Each session thinks, calls and waits, for `seconds`; calls that are open then are waited for."""
    rng = random.Random(5)
    outcome = Outcome(len(sessions))
    begun = time.perf_counter()
    due = [(begun + rng.expovariate(1 / think_s), n) for n in range(len(sessions))]
    heapq.heapify(due)
    by_fd = {session.stdout: n for n, session in enumerate(sessions)}
    waiting: set[int] = set()
    with selectors.DefaultSelector() as readable:
        for fd in by_fd:
            readable.register(fd, selectors.EVENT_READ)
        while (now := time.perf_counter()) < begun + seconds or waiting:
            if now > begun + seconds + WAIT_S:
                break
            while due and due[0][0] <= now < begun + seconds:
                n = heapq.heappop(due)[1]
                sessions[n].sent_at = time.perf_counter()
                os.write(sessions[n].stdin, make())
                waiting.add(n)
            pause = max(0.0, min(due[0][0] - now, 0.5)) if due and now < begun + seconds else 0.5
            for key, _ in readable.select(pause):
                n = by_fd[key.fd]
                for line in sessions[n].receive():
                    ended = time.perf_counter()
                    outcome.latencies[n].append(ended - sessions[n].sent_at)
                    if driver.failed(line):
                        outcome.failures.append(line[:300])
                    outcome.timely += ended < begun + seconds
                    waiting.discard(n)
                    heapq.heappush(due, (ended + rng.expovariate(1 / think_s), n))
    outcome.unanswered, outcome.seconds = len(waiting), seconds
    return outcome


def measure(options: Options) -> Report:
    """Fit the model, check it with real sessions, and print its predictions for other numbers."""
    report = Report("Sessions of one owner")
    rng = random.Random(7)
    which = options.newest
    rows, models = [], []
    with World(which, BROKER, palace=prepared(which, 1000)) as world:
        say(f"sessions: starting {CHECKED} ...")
        open_ = world.ready(CHECKED)
        open_[0].tool("kg_add", subject="palace", predicate="has", object="rooms")
        open_[0].tool("search", query="so that all is loaded")
        for think_s in THINK_S:
            say(f"sessions: {think_s:g} s between two calls ...")
            before = fit(open_, rng, think_s / CHECKED, options.rounds(20, 8), options.rounds(60, 30))
            real = thinking(open_, think_s, options.rounds(90, 40), lambda: line_of(any_tool(rng), rng))
            after = fit(open_, rng, think_s / CHECKED, options.rounds(20, 8), options.rounds(60, 30))
            # other work on the machine comes and goes: the model is that of before and after
            model = Model(before.lane + after.lane, (before.ahead + after.ahead) / 2, before.beside + after.beside)
            models.append(model)
            told = model.simulate(CHECKED, think_s, 20_000)
            rows += [_row("model", think_s, told, CHECKED / (think_s + _mean(told)), model)]
            rows += [_row("measured", think_s, real.all, real.rate, None, real.bad)]
            report.check(f"mean answer against the model, {think_s:g} s", abs(_mean(real.all) / _mean(told) - 1), ERROR)
            report.check(f"failed calls, {think_s:g} s", real.bad, 0)
        memory = world.memory_mb()
    head = ["", "think, s", "calls/s", "mean", "p50", "p99", "lane busy", "failed"]
    report.add(f"{CHECKED} sessions, answer in ms:", head, rows)
    best = min(models, key=lambda model: model.lane_s)
    _plan(report, best)
    report.notes.append(f"Memory with {CHECKED} sessions, MB: {', '.join(f'{k} {v:.0f}' for k, v in memory.items())}.")
    return report


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _row(name: str, think_s: float, found: list[float], rate: float, model: Model | None, bad: int = 0) -> list[str]:
    times = [fmt(value * 1e3) for value in (_mean(found), percentile(found, 50), percentile(found, 99))]
    busy = f"{min(1.0, rate * (1 - SHARE_BESIDE) * model.lane_s):.0%}" if model else ""
    return [name, f"{think_s:g}", fmt(rate), *times, busy, str(bad)]


def _plan(report: Report, model: Model) -> None:
    rows = []
    for sessions in PLANNED:
        told = model.simulate(sessions, AGENT_S, 20_000)
        rows.append([f"{sessions:,}", *_row("", AGENT_S, told, sessions / (AGENT_S + _mean(told)), model)[2:-1]])
    head = ["sessions", "calls/s", "mean", "p50", "p99", "lane busy"]
    report.add(f"By the model, {AGENT_S:g} s between two calls of a session, answer in ms:", head, rows)
    report.notes.append(
        f"A call keeps the lane for {model.lane_s * 1e3:.1f} ms on average, {median(model.lane) * 1e3:.1f} ms in the "
        f"middle; it is full with {model.full_at(AGENT_S):,.0f} sessions that think {AGENT_S:g} s."
    )


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
