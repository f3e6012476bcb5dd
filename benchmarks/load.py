"""Many sessions at once: trivial calls from 32, a mixed load from 8, searches from 32."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import REPO, Engine, fmt, median, percentile
from benchmarks.driver import Outcome, closed_loop
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, rivals, say
from benchmarks.world import BARE, BROKER, HUB, World

MANY, SOME = 32, 8
TIMES, P99_S, WORST_S = 3.0, 0.1, 1.0
STARVED = 0.5  # of the mean number of calls: a session with less had no fair share
Make = Callable[[int, int], bytes]


def trivial(index: int, number: int) -> bytes:
    """Pings, graph queries and constants in turn."""
    return _TRIVIAL[(index + number) % len(_TRIVIAL)]


_TRIVIAL = (
    driver.request(1, "ping"),
    driver.call(1, "kg_query", {"entity": "palace"}),
    driver.call(1, "get_aaak_spec", {}),
)


def only(line: bytes) -> Make:
    """The same call again and again."""
    return lambda _index, _number: line


class Searches:
    """Different questions all the time."""

    def __init__(self, seed: int) -> None:
        self._queries = texts.queries(400, seed)

    def __call__(self, index: int, number: int) -> bytes:
        query = self._queries[(index * 37 + number) % len(self._queries)]
        return driver.call(1, "search", {"query": f"{query} {index} {number}"})


class Mixed:
    """What agents do: half searches and reads, the rest writes to everything."""

    MIX = ("search",) * 5 + ("add",) * 3 + ("get",) * 2 + ("kg_add", "kg_query", "diary", "list_wings")

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self, index: int, number: int) -> bytes:
        rng = self._rng
        kind = rng.choice(self.MIX)
        text = f"{kind} {index} {number}: {texts.words(rng, 20)}"
        known = number % 900  # one of the thousand that were there before
        calls: dict[str, tuple[str, dict[str, object]]] = {
            "search": ("search", {"query": texts.words(rng, 5)}),
            "add": ("add_drawer", {"wing": f"w{index % 7}", "room": "r", "content": text}),
            "get": ("get_drawer", {"drawer_id": f"drawer_w{known % 7}_r{known % 13}_{known:024d}"}),
            "kg_add": ("kg_add", {"subject": f"s{index}_{number}", "predicate": "has", "object": "o"}),
            "kg_query": ("kg_query", {"entity": f"s{index}_{number}"}),
            "diary": ("diary_write", {"agent_name": f"agent{index}", "entry": text}),
            "list_wings": ("list_wings", {}),
        }
        return driver.call(1, *calls[kind])


def rounds(
    options: Options,
    pairs: list[tuple[str, Engine]],
    sessions: int,
    loads: dict[str, Callable[[int], Make]],
    seconds: float,
) -> dict[str, dict[str, Outcome]]:
    """Every rival under every load, one after the other in each round; outcomes by rival and load, rounds joined."""
    found: dict[str, dict[str, Outcome]] = {}
    for number in range(options.rounds(3, 1)):
        for kind, which in pairs:
            name = label(kind, which)
            say(f"load: {sessions} sessions, round {number + 1}, {name} ...")
            with World(which, kind, palace=prepared(which, 1000)) as world:
                open_ = world.ready(sessions)
                open_[0].tool("kg_add", subject="palace", predicate="has", object="rooms")
                open_[0].tool("search", query="so that all is loaded")
                for what, make in loads.items():
                    outcome = found.setdefault(name, {}).setdefault(what, Outcome(sessions))
                    outcome.join(closed_loop(open_, make(number), seconds))
    return found


def _fairness(outcome: Outcome) -> float:
    """Calls of the session with the fewest, over the mean."""
    counts = [len(session) for session in outcome.latencies]
    return min(counts) / (sum(counts) / len(counts)) if sum(counts) else 0.0


def _tell(report: Report, caption: str, found: dict[str, dict[str, Outcome]]) -> None:
    rows = []
    for name, outcomes in found.items():
        for what, outcome in outcomes.items():
            rows.append(
                [
                    name,
                    what,
                    fmt(median(outcome.rates)),
                    fmt(percentile(outcome.all, 50) * 1e3),
                    fmt(percentile(outcome.all, 99) * 1e3),
                    fmt(max(outcome.all, default=0.0) * 1e3),
                    f"{_fairness(outcome):.2f}",
                    f"{outcome.bad} of {len(outcome.all) + outcome.unanswered}",
                ]
            )
            if outcome.failures:
                why = outcome.failures[0].decode("utf-8", "replace").replace(str(REPO), "...")[:200]
                report.notes.append(f"{name}, {what}, failed for example: `{why}`")
    head = ["", "load", "calls/s", "p50 ms", "p99 ms", "worst ms", "least/mean", "failed"]
    report.add(caption, head, rows)


def _checks(options: Options, report: Report, found: dict[str, dict[str, Outcome]], what: str, rival_kind: str) -> None:
    """Rate against the rival, stalls, starvation, failures."""
    rival = next((found[label(rival_kind, w)][what] for w in options.engines if label(rival_kind, w) in found), None)
    for which in options.engines:
        ours = found[label(BROKER, which)][what]
        name = f"{what} ({which.version})"
        if rival is not None and what != "search" and which is options.newest:
            note = f"{fmt(median(ours.rates))} against {fmt(median(rival.rates))} calls/s"
            ratio = median(ours.rates) / median(rival.rates) if median(rival.rates) else float("inf")
            report.check(f"{name}: rate over the hub's", ratio, TIMES, " x", note, least=True)
        report.check(f"{name}: slowest call", max(ours.all, default=0.0), WORST_S, " s")
        report.check(f"{name}: failed calls", ours.bad, 0)
        report.check(f"{name}: least calls of a session over the mean", _fairness(ours), STARVED, least=True)


def trivials(options: Options, report: Report) -> None:
    pairs = rivals(options.engines, (HUB, BROKER))
    loads: dict[str, Callable[[int], Make]] = {
        "ping": lambda _: only(_TRIVIAL[0]),
        "kg_query": lambda _: only(_TRIVIAL[1]),
        "trivial mix": lambda _: trivial,
    }
    found = rounds(options, pairs, MANY, loads, options.rounds(4, 2))
    _tell(report, f"{MANY} sessions, each with its next trivial call as soon as the last is answered:", found)
    _checks(options, report, found, "trivial mix", HUB)
    for which in options.engines:
        ours = found[label(BROKER, which)]["trivial mix"]
        report.check(f"trivial mix ({which.version}): p99", percentile(ours.all, 99), P99_S, " s")


def mixed(options: Options, report: Report) -> None:
    pairs = rivals(options.engines, (BARE, HUB, BROKER))
    found = rounds(options, pairs, SOME, {"mixed load": Mixed}, options.rounds(10, 6))
    _tell(report, f"{SOME} sessions that search, read and write on 1,000 drawers:", found)
    _checks(options, report, found, "mixed load", HUB)


def searching(options: Options, report: Report) -> None:
    pairs = rivals(options.engines, (HUB, BROKER))
    found = rounds(options, pairs, MANY, {"search": Searches}, options.rounds(10, 6))
    _tell(report, f"{MANY} sessions that search, on 1,000 drawers:", found)
    _checks(options, report, found, "search", HUB)


def measure(options: Options) -> Report:
    """All three."""
    report = Report("Many sessions")
    trivials(options, report)
    mixed(options, report)
    searching(options, report)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
