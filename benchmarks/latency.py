"""How much shim and broker add to a call that itself costs next to nothing."""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver, texts
from benchmarks.common import fmt, median, percentile
from benchmarks.driver import Outcome, Session, closed_loop, serial
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, added, label, main, rivals, say, worlds
from benchmarks.world import BARE, BROKER, OTHER, World

MORE_LIMIT_MS = 0.01  # than the other version of ours
ADDED_P50_MS, ADDED_P99_MS, PING_P50_MS = 0.4, 2.0, 0.3
Rounds = dict[str, dict[str, list[Outcome]]]  # by rival and call
FLOOR = "echo (the driver's own)"
CALLS = {
    "ping": driver.request(1, "ping"),
    "kg_query": driver.call(1, "kg_query", {"entity": "palace"}),
    "get_aaak_spec": driver.call(1, "get_aaak_spec", {}),
}


def alone(options: Options, report: Report) -> None:
    """One session, one call after the other; rounds interleaved over all rivals."""
    pairs = rivals(options.engines)
    with worlds(pairs, lambda which: prepared(which, 1000)) as by_label:
        first = next(iter(by_label.values()))
        sessions = {FLOOR: driver.echo_server(env=first.env, cwd=first.root, log=first.root / "echo.stderr")}
        first.sessions.append(sessions[FLOOR])
        for name, world in by_label.items():
            sessions[name] = world.ready(1)[0]
            sessions[name].tool("kg_add", subject="palace", predicate="has", object="rooms")
            sessions[name].tool("search", query="so that all is loaded")
        found: Rounds = {name: {what: [] for what in CALLS} for name in sessions}
        for number in range(options.rounds(13, 5)):
            for name, session in sessions.items():
                for what, line in CALLS.items():
                    outcome = serial(session, [line] * options.rounds(250, 100))
                    if number:  # the first round warms up
                        found[name][what].append(outcome)
        behind = {name: _behind(sessions[name], options.rounds(15, 6)) for name in by_label}
        beside = {name: _beside(world, sessions[name], options.rounds(4, 2)) for name, world in by_label.items()}
    _tell_alone(options, report, found)
    _tell_behind(options, report, behind)
    _tell_beside(report, beside)


def _ms(rounds: list[Outcome], p: float) -> float:
    """Median over the rounds of their percentile: one hiccup of the machine spoils one round only."""
    return median(percentile(outcome.all, p) for outcome in rounds) * 1e3


def _tell_alone(options: Options, report: Report, found: Rounds) -> None:
    rows = []
    for name, calls in found.items():
        cells = [f"{fmt(_ms(rounds, 50))} / {fmt(_ms(rounds, 99))}" for rounds in calls.values()]
        rows.append([name, *cells, fmt(sum(outcome.bad for rounds in calls.values() for outcome in rounds))])
    caption = "One session, one call at a time, p50 / p99 in ms (medians of rounds):"
    report.add(caption, ["", *CALLS, "failed"], rows)
    for which in options.engines:
        ours, bare = found[label(BROKER, which)], found[label(BARE, which)]
        others = found.get(label(OTHER, which))
        for what in ("kg_query", "get_aaak_spec"):
            if others is not None:
                for of, p in (("p50", 50), ("fastest", 0)):
                    more = added(*([percentile(one.all, p) * 1e3 for one in side[what]] for side in (ours, others)))
                    name = f"{what} beyond the other broker's ({which.version}), {of}"
                    report.check(name, more, MORE_LIMIT_MS, " ms")
            for p, limit in ((50, ADDED_P50_MS), (99, ADDED_P99_MS)):
                high, low = _ms(ours[what], p), _ms(bare[what], p)
                note = f"{fmt(high)} against {fmt(low)} ms"
                report.check(f"{what} added to bare {which.version}, p{p}", high - low, limit, " ms", note)
        report.check(f"ping p50 ({which.version})", _ms(ours["ping"], 50), PING_P50_MS, " ms")


def _behind(session: Session, rounds: int) -> list[float]:
    """Latency of pings while a search of the same session runs."""
    took: list[float] = []
    for query in texts.queries(rounds, seed=5):
        session.send(driver.call(7, "search", {"query": query}))
        waiting = True
        while waiting:
            begun = time.perf_counter()
            session.send(driver.request(8, "ping"))
            answered = False
            while not answered:
                assert select.select([session.stdout], [], [], 60)[0], "no answer to a ping"
                for line in session.receive():
                    if b'"result":{}' in line or b'"result": {}' in line:
                        took.append(time.perf_counter() - begun)
                        answered = True
                    else:
                        waiting = False
    return took


def _tell_behind(options: Options, report: Report, behind: dict[str, list[float]]) -> None:
    rows = [
        [n, fmt(median(v) * 1e3), fmt(percentile(v, 99) * 1e3), fmt(max(v) * 1e3), str(len(v))]
        for n, v in behind.items()
    ]
    report.add("`ping` while a search of the same session runs, ms:", ["", "p50", "p99", "worst", "pings"], rows)
    for which in options.engines:
        found = behind[label(BROKER, which)]
        report.check(f"ping p50 behind a running search ({which.version})", median(found) * 1e3, PING_P50_MS, " ms")


def _beside(world: World, session: Session, seconds: float) -> list[float]:
    """Latency of graph queries while another session searches all the time."""
    busy = world.ready(1)[0]
    searches = [driver.call(1, "search", {"query": query}) for query in texts.queries(200, seed=6)]
    lines = CALLS["kg_query"]
    outcome = closed_loop([busy, session], lambda i, n: lines if i else searches[n % len(searches)], seconds)
    return outcome.latencies[1]


def _tell_beside(report: Report, beside: dict[str, list[float]]) -> None:
    rows = [
        [name, fmt(percentile(v, 50) * 1e3), fmt(percentile(v, 99) * 1e3), fmt(max(v) * 1e3), str(len(v))]
        for name, v in beside.items()
    ]
    report.add(
        "`kg_query` while another session searches all the time, ms:", ["", "p50", "p99", "worst", "calls"], rows
    )


def measure(options: Options) -> Report:
    """Trivial calls, and pings behind a busy one."""
    say("latency ...")
    report = Report("Latency of trivial calls")
    alone(options, report)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
