"""The first call after a pause: the engine has let go of the palace and opens it again."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import Engine, fmt, percentile
from benchmarks.driver import Outcome, serial
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, say
from benchmarks.world import BROKER, World
from tests.proctools import eventually

SIZES = (1_000, 10_000)
FIRST_LIMIT_MS = 250.0
CALLS = ("search", "add_drawer", "kg_query")


def _call(tool: str, number: int) -> bytes:
    (query,) = texts.queries(1, number)
    content = {"wing": "w1", "room": "r1", "content": f"after pause {number}: {query}"}
    arguments = {"search": {"query": query}, "add_drawer": content, "kg_query": {"entity": "heron"}}
    return driver.call(1, tool, arguments[tool])


def _parked(world: World) -> bool:
    return bool(world.status()["engine"]["state"] == "parked")


def one_engine(options: Options, which: Engine, size: int) -> dict[str, tuple[Outcome, Outcome]]:
    """By tool: the first call after a pause, and one right behind it."""
    found = {tool: (Outcome(1), Outcome(1)) for tool in CALLS}
    with ExitStack() as stack:
        env = {"MEMPALACE_BROKER_PARK_S": "1"}
        world = stack.enter_context(World(which, BROKER, palace=prepared(which, size), env=env))
        (session,) = world.ready(1)
        serial(session, [_call(tool, 999) for tool in CALLS])
        for number in range(options.rounds(20, 4)):
            for tool, (first, second) in found.items():
                eventually(lambda: _parked(world), 60, "a parked engine")
                serial(session, [_call(tool, 2 * number)], first)
                serial(session, [_call(tool, 2 * number + 1)], second)
    return found


def measure(options: Options) -> Report:
    """Both sizes, each engine by itself."""
    report = Report("The first call after a pause")
    for size in SIZES:
        rows = []
        for which in options.engines:
            say(f"park: {label(BROKER, which)}, {size} drawers ...")
            for tool, (first, second) in one_engine(options, which, size).items():
                p50, p90 = (percentile(first.all, rank) * 1e3 for rank in (50, 90))
                failed = fmt(first.bad + second.bad)
                rows.append([which.version, tool, fmt(p50), fmt(p90), fmt(percentile(second.all, 50) * 1e3), failed])
                report.check(f"{tool} after a pause, {which.version}, {size:,} drawers", p50, FIRST_LIMIT_MS, " ms")
        head = ["", "", "first p50", "first p90", "next p50", "failed"]
        report.add(
            f"One session on {size:,} drawers, one second without a call before each first call, ms:", head, rows
        )
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
