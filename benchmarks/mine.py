"""A mine of many files while four sessions search all the time.

python benchmarks/mine.py             2,000 files, 10 MB of text: takes most of an hour, nearly all of it embedding
python benchmarks/mine.py --quick     60 files
"""

from __future__ import annotations

import random
import select
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import Engine, fmt, percentile
from benchmarks.driver import Outcome, Session, closed_loop
from benchmarks.load import Searches
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, rivals, say
from benchmarks.world import BARE, BROKER, World

SEARCHING = 4
FILE_WORDS = 650  # some 5 kB
OVER_BARE, P99_S = 0.4, 0.3
_SLICE_S = 2.0
_PATIENCE_S = 2 * 3600.0


def _write_project(folder: Path, files: int) -> Path:
    rng = random.Random(files)
    folder.mkdir()
    for n in range(files):
        paragraphs = [texts.words(rng, FILE_WORDS // 10) + "." for _ in range(10)]
        (folder / f"note{n:04d}.md").write_text("\n\n".join(paragraphs), encoding="utf-8")
    return folder


def _mine(world: World, files: int) -> tuple[float, float, Outcome]:
    """Measure the seconds that the mine takes, the processor time of everything meanwhile, and the searches."""
    miner, *searching = world.ready(1 + SEARCHING)
    for session in (miner, *searching):
        session.tool("search", query="so that all is loaded")
    source = str(_write_project(world.root / "project", files))
    found, begun, used = Outcome(SEARCHING), time.perf_counter(), world.cpu_s()
    miner.send(driver.call(1, "mine", {"source": source, "wing": "mined"}))
    while not _answered(miner) and time.perf_counter() - begun < _PATIENCE_S:
        found.join(closed_loop(searching, Searches(len(found.rates)), _SLICE_S))
    answer = miner.line(_PATIENCE_S)
    assert not driver.failed(answer), answer[:300]
    return time.perf_counter() - begun, world.cpu_s() - used, found


def _answered(session: Session) -> bool:
    return bool(select.select([session.stdout], [], [], 0)[0])


def _has_mine(which: Engine) -> bool:
    return not which.version.startswith("3.4.")


def measure(options: Options) -> Report:
    """Bare and broker, one after the other; only where mempalace has the tool."""
    files = options.rounds(2000, 60)
    report = Report(f"A mine of {files:,} files")
    engines = [which for which in options.engines if _has_mine(which)]
    rows, took = [], {}
    for kind, which in rivals(engines, (BARE, BROKER)):
        name = label(kind, which)
        say(f"mine: {name}, {files} files ...")
        with World(which, kind, palace=prepared(which, 1000)) as world:
            seconds, used, found = _mine(world, files)
        took[name] = seconds
        p99 = percentile(found.all, 99)
        searches = [fmt(len(found.all)), fmt(percentile(found.all, 50) * 1e3), fmt(p99 * 1e3), fmt(found.bad)]
        rows.append([name, fmt(seconds), fmt(used), *searches])
        if kind == BROKER:
            report.check(f"searches beside the mine, p99 ({which.version})", p99, P99_S, " s")
            over = seconds / took[label(BARE, which)]
            report.check(f"the mine over bare ({which.version})", over, OVER_BARE, " x")
    head = ["", "mine, s", "processor time, s", "searches", "p50 ms", "p99 ms", "failed"]
    report.add(f"{files:,} files of 5 kB into 1,000 drawers, {SEARCHING} sessions searching meanwhile:", head, rows)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
