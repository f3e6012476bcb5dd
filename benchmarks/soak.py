"""Eight sessions with a mixed load for an hour: do memory, descriptors and the cost of a call stay what they were?

Each session makes a call every two seconds, so that the palace grows by a few thousand drawers only, whose memory
counts. At the highest priority (`nice -n -20`, for root) other work on the machine changes little.

python benchmarks/soak.py             an hour for each engine
python benchmarks/soak.py --quick     a quarter of an hour
"""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import Engine, fmt, percentile
from benchmarks.driver import Session, closed_loop
from benchmarks.load import Mixed
from benchmarks.palaces import prepared
from benchmarks.sessions import thinking
from benchmarks.suite import Options, Report, label, main, say
from benchmarks.world import BROKER, World
from tests import proctools

SESSIONS = 8
THINK_S = 2.0  # mean pause of a session between two calls
WINDOWS = 6  # the first of which is compared with the last
GROWTH = 1.05
WARM_UP_S = 120.0  # some 4,000 calls: caches fill, and memory with them


@dataclass
class Window:
    """One part of the run.

    Attributes:
        rss, descriptors: of broker and engine together, at its end. cpu_ms: processor time of a call. p50: in ms.
    """

    rss: float
    descriptors: int
    cpu_ms: float
    p50: float
    calls: int
    bad: int

    @property
    def row(self) -> list[str]:
        return [fmt(value) for value in (self.calls, self.bad, self.rss, self.descriptors, self.cpu_ms, self.p50)]


def _window(world: World, sessions: list[Session], seconds: float, number: int) -> Window:
    mixed, calls = Mixed(number), itertools.count()
    before = world.cpu_s()
    found = thinking(sessions, THINK_S, seconds, lambda: mixed((n := next(calls)) % SESSIONS, n))
    cpu_ms = (world.cpu_s() - before) / max(1, len(found.all)) * 1e3
    owners = [*world.brokers(), *world.engines()]
    rss = sum(proctools.memory_kb(pid)["rss"] for pid in owners) / 1024
    descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in owners)
    return Window(rss, descriptors, cpu_ms, percentile(found.all, 50) * 1e3, len(found.all), found.bad)


def one_engine(report: Report, which: Engine, seconds: float) -> None:
    """All windows of one engine."""
    with World(which, BROKER, palace=prepared(which, 1000)) as world:
        sessions = world.ready(SESSIONS)
        closed_loop(sessions, Mixed(0), WARM_UP_S)
        windows = []
        for number in range(1, WINDOWS + 1):
            windows.append(_window(world, sessions, seconds / WINDOWS, number))
            say(f"soak: {label(BROKER, which)}, {number} of {WINDOWS}: {', '.join(windows[-1].row)}")
    head = ["part", "calls", "failed", "RSS MB", "descriptors", "processor time ms", "p50 ms"]
    rows = [[str(number), *window.row] for number, window in enumerate(windows, 1)]
    report.add(f"{label(BROKER, which)}, broker and engine together; {fmt(seconds / 60)} minutes:", head, rows)
    first, last = windows[0], windows[-1]
    for what, over in (
        ("memory", last.rss / first.rss),
        ("processor time of a call", last.cpu_ms / first.cpu_ms),
        ("p50 of a call", last.p50 / first.p50),
    ):
        report.check(f"{what}, last over first ({which.version})", over, GROWTH, " x")
    report.check(f"descriptors more than at first ({which.version})", last.descriptors - first.descriptors, 0)
    report.check(f"failed calls ({which.version})", sum(window.bad for window in windows), 0)


def measure(options: Options) -> Report:
    """Each engine by itself."""
    report = Report("A long mixed load")
    for which in options.engines:
        one_engine(report, which, options.rounds(3600, 900))
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
