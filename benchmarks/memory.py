"""How much memory a session takes, and all of them together."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import fmt, median
from benchmarks.driver import Session
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, label, main, rivals, say
from benchmarks.world import BARE, BROKER, HUB, OTHER, World
from tests import proctools

SESSION_RSS_MB, SESSION_PSS_MB, BROKER_RSS_MB = 12.0, 6.0, 45.0
SESSIONS = 8


def _use(session: Session) -> None:
    """What an agent does in a first minute."""
    session.ask("tools/list")
    session.tool("search", query="what did we decide about the palace")
    session.tool("kg_query", entity="palace")
    session.tool("list_wings")


def _mb(pid: int, what: str) -> float:
    return proctools.memory_kb(pid)[what] / 1024


def _row(name: str, pids: list[int]) -> list[str]:
    return [name, str(len(pids)), *(fmt(median(_mb(pid, what) for pid in pids)) for what in ("rss", "pss", "private"))]


def _owner_rows(world: World, sessions: list[Session], report: Report) -> list[list[str]]:
    rest = [pid for pid in world.pids() if pid not in {session.pid for session in sessions}]
    rows = []
    for pid in rest:
        broker = "mempalace_broker.broker" in proctools.cmdline_of(pid)
        owner = f"the {world.kind}"
        name = owner if broker else "hub" if world.kind == HUB else f"{owner}'s engine"
        rows.append(_row(f"{name} ({world.engine.version})", [pid]))
        if broker and world.kind == BROKER:
            note = f"PSS {fmt(_mb(pid, 'pss'))} MB, {len(sessions)} sessions"
            report.check(
                f"broker without engine, RSS ({world.engine.version})", _mb(pid, "rss"), BROKER_RSS_MB, " MB", note
            )
    return rows


def measure(options: Options) -> Report:
    """Eight sessions of each kind, after some use."""
    report = Report("Memory")
    rows: list[list[str]] = []
    totals: list[list[str]] = []
    for kind, which in rivals(options.engines, (BARE, HUB, BROKER)):
        say(f"memory: {label(kind, which)} ...")
        with World(which, kind, palace=prepared(which, 1000)) as world:
            sessions = world.ready(SESSIONS)
            for session in sessions:
                _use(session)
            if kind in (BROKER, OTHER):
                world.wait_engine()
            pids = [session.pid for session in sessions]
            rows.append(_row(f"session, {label(kind, which)}", pids))
            rows += _owner_rows(world, sessions, report)
            total = world.memory_mb()
            totals.append([label(kind, which), fmt(total["rss"]), fmt(total["pss"])])
            if kind == BROKER:
                for what, limit in (("rss", SESSION_RSS_MB), ("pss", SESSION_PSS_MB)):
                    found = median(_mb(pid, what) for pid in pids)
                    report.check(f"session, {what.upper()} ({which.version})", found, limit, " MB")
    report.add("Each process, median, MB:", ["", "processes", "RSS", "PSS", "private"], rows)
    report.add(f"All together with {SESSIONS} sessions, owner included, MB:", ["", "RSS", "PSS"], totals)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
