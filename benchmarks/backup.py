"""How long writes wait for a snapshot of a palace of 100,000 drawers, while one session writes all the time.

python benchmarks/backup.py                 both engines: takes a quarter of an hour, most of it once, for the palaces
python benchmarks/backup.py --quick         10,000 drawers
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import Engine, fmt, percentile
from benchmarks.driver import Session
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, say
from benchmarks.world import BROKER, World
from tests.background import Background

SIZE, QUICK_SIZE = 100_000, 10_000
PAUSE_LIMIT_MS = 200.0
WRITE_S = 120.0  # at most
BESIDE_S = 15.0  # of writes without a snapshot, for comparison


class Writer(Background):
    """A session that writes without a rest. `waits`: when each write began, and its seconds."""

    end_s = WRITE_S

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ends = threading.Event()
        self.waits: list[tuple[float, float]] = []

    def run(self) -> None:
        rng = random.Random(7)
        while not self._ends.is_set():
            content = {"wing": "w1", "room": "r1", "content": f"during a snapshot {texts.words(rng, 30)}"}
            began = time.monotonic()
            self._session.answer(driver.call(1, "add_drawer", content), WRITE_S)
            self.waits.append((began, time.monotonic() - began))

    def between(self, began: float, ended: float) -> list[float]:
        """The seconds of the writes that were under way at any moment in between."""
        return [took for at, took in self.waits if at + took >= began and at <= ended]

    def end(self) -> None:
        self._ends.set()


def _snapshot(world: World) -> float:
    """Make one; the seconds for which it says that writes waited."""
    assert world.shims is not None
    argv = [str(world.shims / "mempalace-broker"), "backup", "create", "--untried", "--keep", "1", "--json"]
    done = subprocess.run(argv, env=world.env, capture_output=True, check=True, timeout=600)
    return float(json.loads(done.stdout)["pause_s"])


def one_engine(options: Options, which: Engine, size: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """What each snapshot said, the longest wait during each, its seconds, and all waits without one."""
    pauses, longest, lasted = [], [], []
    with World(which, BROKER, palace=prepared(which, size)) as world:
        session, _ = world.first_search()
        with Writer(session) as writer:
            began = time.monotonic()
            time.sleep(BESIDE_S)
            beside = writer.between(began, time.monotonic())
            for _ in range(options.rounds(10, 3)):
                began = time.monotonic()
                pauses.append(_snapshot(world))
                ended = time.monotonic()
                longest.append(max(writer.between(began, ended)))
                lasted.append(ended - began)
    return pauses, longest, lasted, beside


def measure(options: Options) -> Report:
    """Each engine by itself."""
    report = Report("Snapshots")
    size = QUICK_SIZE if options.quick else SIZE
    rows = []
    for which in options.engines:
        say(f"backup: {label(BROKER, which)}, {size} drawers ...")
        pauses, longest, lasted, beside = one_engine(options, which, size)
        shown = [percentile(pauses, 50), max(pauses), percentile(longest, 50), max(longest)]
        alone = [percentile(beside, 50), percentile(beside, 99), max(beside)]
        rows.append([which.version, *(fmt(value * 1e3) for value in (*shown, *alone)), fmt(percentile(lasted, 50))])
        report.check(f"pause of writes, {which.version}, {size:,} drawers", max(pauses) * 1e3, PAUSE_LIMIT_MS, " ms")
    head = ["", "pause p50", "longest", "write during one, worst, p50", "longest"]
    head += ["write without one p50", "p99", "longest", "a snapshot, s"]
    report.add(f"One session writes all the time; {size:,} drawers, ms:", head, rows)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
