"""How long the first search takes when nobody has the palace open, and the next one after a kill -9 of the engine.

python benchmarks/cold.py             1,000 and 100,000 drawers, by turns; once some minutes more, to make the palaces
python benchmarks/cold.py --quick     1,000 drawers
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import Engine, fmt, median
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, rivals, say
from benchmarks.world import BARE, BROKER, LOAD_S, SEARCH, World
from tests.proctools import eventually

SIZES = (1_000, 100_000)
OVER_BARE = 0.6
REPLACED_S = {1_000: 0.8, 100_000: 1.5}


def _once(kind: str, which: Engine, size: int) -> tuple[float, float | None]:
    """Seconds to the first search, and from the kill of the engine to the next one; None where there is no engine."""
    with World(which, kind, palace=prepared(which, size)) as world:
        session, first = world.first_search()
        if kind != BROKER:
            return first, None
        (engine,) = eventually(world.engines, what="the engine")
        begun = time.perf_counter()
        os.kill(engine, signal.SIGKILL)
        session.answer(SEARCH, LOAD_S)
        return first, time.perf_counter() - begun


def measure(options: Options) -> Report:
    """The rivals by turns at each size."""
    report = Report("Nobody has the palace open")
    for size in SIZES[:1] if options.quick else SIZES:
        found: dict[tuple[str, str], list[tuple[float, float | None]]] = {}
        for turn in range(options.rounds(5, 3)):
            for kind, which in rivals(options.engines, (BARE, BROKER)):
                say(f"cold: {label(kind, which)}, {size} drawers, turn {turn + 1} ...")
                found.setdefault((kind, which.version), []).append(_once(kind, which, size))
        rows, firsts = [], {}
        for (kind, version), turns in found.items():
            first = firsts[kind, version] = [took for took, _ in turns]
            again = [took for _, took in turns if took is not None]
            shown = [fmt(median(again)), fmt(max(again))] if again else ["", ""]
            rows.append([f"{kind} {version}", fmt(median(first)), fmt(max(first)), *shown])
            if again:
                report.check(f"engine replaced, {version}, {size:,} drawers", median(again), REPLACED_S[size], " s")
        head = ["", "first search p50", "worst", "search after kill -9 p50", "worst"]
        report.add(f"{size:,} drawers, s:", head, rows)
        for which in options.engines:
            bare, ours = median(firsts[BARE, which.version]), median(firsts[BROKER, which.version])
            name = f"first search over bare {which.version}, {size:,} drawers"
            report.check(name, ours / bare, OVER_BARE, " x", f"{fmt(ours)} against {fmt(bare)} s")
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
