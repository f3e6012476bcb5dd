"""How long an agent waits for its server: from spawning it to the answer to `initialize`; and what that costs: the
processor time of such a server, until it has answered a first call and was ended.

Warm: the owner of the palace runs already. Cold: nothing of ours or of mempalace's runs.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import driver
from benchmarks.common import Engine, fmt, median, percentile
from benchmarks.driver import Session
from benchmarks.palaces import prepared
from benchmarks.suite import Options, Report, added, label, main, rivals, say, worlds
from benchmarks.world import BARE, BROKER, HUB, OTHER, World

MORE_LIMIT_MS = 1.0  # than the other version of ours
WARM_LIMIT = 0.45  # times the hub's proxy
COLD_LIMIT_S = 1.0
FLOOR = "an echo in python -I -S"
_HELLO = driver.request(1, "initialize", driver.INITIALIZE)
_TOOLS = driver.request(2, "tools/list")
_CALL = driver.call(3, "kg_stats", {})


def first_answer(world: World) -> tuple[float, float]:
    """Seconds from spawn to the answer to initialize; and of the processor, for that, a call and the end."""
    before, begun = _processor(), time.perf_counter()
    session = world.start()
    took = _answer(session, begun)
    session.send(_CALL)
    session.line()
    _leave(world, session)
    return took, _processor() - before


def _processor() -> float:
    """Seconds that all ended children took of a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _answer(session: Session, begun: float) -> float:
    session.send(_HELLO)
    line = session.line()
    took = time.perf_counter() - begun
    assert not driver.failed(line), line[:300]
    return took


def _leave(world: World, session: Session) -> None:
    session.end()
    world.sessions.remove(session)


def floor(world: World) -> tuple[float, float]:
    """The same for a server that does nothing."""
    before, begun = _processor(), time.perf_counter()
    session = driver.echo_server(env=world.env, cwd=world.root, log=world.root / "echo.stderr")
    took = _answer(session, begun)
    session.end()
    return took, _processor() - before


def warm(options: Options, report: Report) -> None:
    """Owners run; rounds of one spawn each, interleaved."""
    pairs = rivals(options.engines)
    names = (FLOOR, *(label(*pair) for pair in pairs))
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with worlds(pairs) as by_label:
        for world in by_label.values():
            if world.kind != BARE:
                session = world.ready(1)[0]
                session.tool("add_drawer", wing="w", room="r", content="so that there is a palace")
        rounds = options.rounds(40, 10)
        for number in range(rounds):
            measured[FLOOR].append(floor(next(iter(by_label.values()))))
            for name, world in by_label.items():
                if world.kind != BARE or number % 5 == 0:  # a bare engine takes seconds of processor time
                    measured[name].append(first_answer(world))
    took, spent = ({name: [pair[i] for pair in found] for name, found in measured.items()} for i in (0, 1))
    rows = [
        [n, *(fmt(ms * 1e3) for ms in (median(v), percentile(v, 90), min(v), median(spent[n]))), str(len(v))]
        for n, v in took.items()
    ]
    caption = "Spawn to the answer to `initialize`, the owner running; and processor time with a first call, ms:"
    report.add(caption, ["", "p50", "p90", "least", "processor", "rounds"], rows)
    rival = next((median(took[label(HUB, which)]) for which in options.engines if which.has_hub), None)
    for which in options.engines:
        ours = median(took[label(BROKER, which)])
        others = took.get(label(OTHER, which))
        if others is not None:
            more = added(took[label(BROKER, which)], others) * 1e3
            report.check(f"warm start beyond the other broker's ({which.version})", more, MORE_LIMIT_MS, " ms")
            more = added(spent[label(BROKER, which)], spent[label(OTHER, which)]) * 1e3
            report.check(f"the same of the processor ({which.version})", more, MORE_LIMIT_MS, " ms")
        if rival is not None:
            note = f"{fmt(ours * 1e3)} ms; hub's proxy {fmt(rival * 1e3)} ms"
            report.check(f"warm start over the hub's proxy ({which.version})", ours / rival, WARM_LIMIT, " x", note)


def cold(options: Options, report: Report) -> None:
    """Nothing runs: first ever in a new HOME, then on a palace with 1,000 drawers that was served before."""
    took: dict[str, list[float]] = {}
    listed: dict[str, list[float]] = {}
    rounds = options.rounds(7, 3)
    for _ in range(rounds):
        for which in options.engines:
            _cold_round(which, took, listed)
    rows = [
        [name, fmt(median(v) * 1e3), fmt(max(v) * 1e3), fmt(median(listed[name]) * 1e3), fmt(max(listed[name]) * 1e3)]
        for name, v in took.items()
    ]
    head = ["", "initialize p50", "worst", "tools/list p50", "worst"]
    report.add("No broker running: spawn to the answer, ms:", head, rows)
    for name, found in took.items():
        report.check(
            f"cold start, {name}", max(found), COLD_LIMIT_S, " s", f"worst of {rounds}; p50 {fmt(median(found))} s"
        )


def _cold_round(which: Engine, took: dict[str, list[float]], listed: dict[str, list[float]]) -> None:
    with World(which, BROKER, palace=prepared(which, 1000)) as world:
        for what in ("first ever", "again"):
            begun = time.perf_counter()
            session = world.start()
            name = f"{what}, {which.version}"
            took.setdefault(name, []).append(_answer(session, begun))
            session.send(_TOOLS)
            session.line()
            listed.setdefault(name, []).append(time.perf_counter() - begun)
            world.wait_engine()
            world.end_servers()


def measure(options: Options) -> Report:
    """Both."""
    say("start: warm ...")
    report = Report("Start of a session")
    warm(options, report)
    say("start: cold ...")
    cold(options, report)
    return report


if __name__ == "__main__":
    sys.exit(main([measure], __doc__))
