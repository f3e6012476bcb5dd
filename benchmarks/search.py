"""Search and add_drawer, one session, on palaces of 1,000 and 10,000 drawers."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import Engine, fmt, percentile
from benchmarks.driver import Outcome, serial
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, rivals, say, worlds
from benchmarks.world import BARE, BROKER

SIZES = (1_000, 10_000)
ADD_LIMIT = 0.4
PER_ROUND = 8


def search_limit(which: Engine) -> float:
    """How much of the bare engine's time a search may take: 3.4.0 embeds on both cores, newer ones on one."""
    return 0.3 if which.version.startswith("3.4.") else 0.25


def _searches(seed: int) -> list[bytes]:
    return [driver.call(1, "search", {"query": query}) for query in texts.queries(PER_ROUND, seed)]


def _adds(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    notes = [f"new {seed} {i}: {texts.words(rng, 30)}" for i in range(PER_ROUND)]
    return [driver.call(1, "add_drawer", {"wing": "w1", "room": "r1", "content": note}) for note in notes]


def one_size(options: Options, report: Report, size: int) -> None:
    """Rounds of some different searches and adds, interleaved over all rivals; the same ones for each."""
    pairs = rivals(options.engines)
    found = {label(*pair): {"search": Outcome(1), "add_drawer": Outcome(1)} for pair in pairs}
    with worlds(pairs, lambda which: prepared(which, size)) as by_label:
        sessions = {name: world.ready(1)[0] for name, world in by_label.items()}
        for session in sessions.values():
            serial(session, [*_searches(999), *_adds(999)])
        for number in range(options.rounds(10, 4)):
            for name, session in sessions.items():
                serial(session, _searches(number), found[name]["search"])
            for name, session in sessions.items():
                serial(session, _adds(number), found[name]["add_drawer"])
    _tell(options, report, size, found)


def _p50(outcome: Outcome) -> float:
    return percentile(outcome.all, 50) * 1e3


def _tell(options: Options, report: Report, size: int, found: dict[str, dict[str, Outcome]]) -> None:
    rows = [
        [
            name,
            *(f"{fmt(_p50(outcome))} / {fmt(percentile(outcome.all, 90) * 1e3)}" for outcome in outcomes.values()),
            fmt(sum(outcome.bad for outcome in outcomes.values())),
        ]
        for name, outcomes in found.items()
    ]
    head = ["", "search p50 / p90", "add_drawer p50 / p90", "failed"]
    report.add(f"One session on {size:,} drawers, every query and text new, ms:", head, rows)
    for which in options.engines:
        ours, bare = found[label(BROKER, which)], found[label(BARE, which)]
        for what, limit in (("search", search_limit(which)), ("add_drawer", ADD_LIMIT)):
            note = f"{fmt(_p50(ours[what]))} against {fmt(_p50(bare[what]))} ms"
            ratio = _p50(ours[what]) / _p50(bare[what])
            report.check(f"{what} over bare {which.version}, {size:,} drawers", ratio, limit, " x", note)


def measure(options: Options) -> Report:
    """Both sizes."""
    report = Report("Search and add")
    for size in SIZES:
        say(f"search: {size} drawers ...")
        one_size(options, report, size)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
