"""A storm on one palace: many sessions write and search at once, things are killed; then every promise is checked.

    python benchmarks/storm.py                                      8 sessions, 60 s, through the broker
    python benchmarks/storm.py --against all --seconds 30           the same without a broker, and on upstream's hub
    python benchmarks/storm.py --kill engine --kill broker          kill -9 in the middle
    python benchmarks/storm.py --engine ~/.local/bin/mempalace-mcp  with your own mempalace
    python benchmarks/storm.py --backend pgvector                   with the drawers in a PostgreSQL made for it

Works in a HOME of its own, never on your palace. After the storm a fresh engine must find every acknowledged write
by id and by search, the backend itself must reach every drawer by its own vector, SQLite must find its files sound,
nothing may have been put aside as corrupt, and at no moment may two processes have had the palace open.
Exit code 0: the broker's palaces are clean; 1: something was lost or broken; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.backends import BACKENDS, CHROMA, backend_env, keep_address
from benchmarks.common import (
    DATABASES,
    VERSIONS,
    Engine,
    Lacking,
    dump,
    engine,
    fmt,
    machine,
    machine_line,
    percentile,
    table,
)
from benchmarks.storm_check import Verdict, check
from benchmarks.storm_load import Client, Ledger, Storm, Tally
from benchmarks.world import BARE, BROKER, HUB, KINDS, World
from tests import proctools

SAMPLE_S = 0.02
KILLS = ("engine", "broker", "both", "shim")
NOTE_340 = (
    "3.4.0: a stock 3.4.0 that opens a palace after deletes puts its healthy index aside (upstream #1710), so the\n"
    "verifier runs with that one function mended; the servers under test are stock except for the broker's tune-ups."
)


NOTE_HUB = (
    "hub: `mempalace serve` keeps the knowledge graph inside the palace, where a bare mempalace-mcp with the same\n"
    "config.json does not look; the verifier looks there."
)


class Result:
    """One storm and what came of it."""

    def __init__(self, name: str, tally: Tally, ledger: Ledger, verdict: Verdict, facts: dict[str, Any]) -> None:
        self.name = name
        self.tally = tally
        self.ledger = ledger
        self.verdict = verdict
        self.facts = facts

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing broken, one owner. Failed calls are for the reader to judge."""
        return self.verdict.clean and self.facts["owners"]["shared"] == 0 and not self.tally.astray

    def rows(self) -> list[tuple[str, str]]:
        tally, verdict, facts = self.tally, self.verdict, self.facts
        calls = sum(tally.calls.values())
        failed = sum(tally.failed.values())
        searches = tally.latencies.get("search", [])
        return [
            ("calls", fmt(calls)),
            ("good calls per second", fmt((calls - failed - tally.unknown) / facts["seconds"])),
            ("failed", f"{fmt(failed)} ({failed / max(1, calls):.1%})"),
            ("outcome unknown", fmt(tally.unknown)),
            ("answers astray", fmt(tally.astray)),
            ("sessions that died", fmt(tally.died)),
            ("search p50 / p99, ms", f"{fmt(percentile(searches, 50) * 1e3)} / {fmt(percentile(searches, 99) * 1e3)}"),
            ("slowest call, s", fmt(tally.worst_s)),
            ("own drawer not found, in the storm", fmt(tally.missed)),
            ("writes acknowledged", fmt(self.ledger.acknowledged)),
            ("lost afterwards", fmt(len(verdict.lost))),
            ("not found by search", fmt(len(verdict.unfindable))),
            ("not reached by its vector", fmt(len(verdict.unreachable))),
            ("wrong text / doubled / undead", f"{len(verdict.wrong)} / {len(verdict.doubled)} / {len(verdict.ghosts)}"),
            ("sqlite complaints", fmt(len(verdict.corrupt))),
            ("corrupt or drift files", fmt(len(verdict.debris))),
            ("owners at once, at most", fmt(facts["owners"]["most"])),
            ("samples with two owners", f"{facts['owners']['shared']} of {facts['owners']['samples']}"),
            ("memory of all, RSS / PSS MB", f"{fmt(facts['memory']['rss'])} / {fmt(facts['memory']['pss'])}"),
            ("verdict", "clean" if self.clean else "DAMAGED"),
        ]

    def as_json(self) -> dict[str, Any]:
        tally = {name: dict(v) if isinstance(v, dict) else v for name, v in vars(self.tally).items()}
        tally["latencies"] = {
            kind: {"n": len(found), "p50_ms": percentile(found, 50) * 1e3, "p99_ms": percentile(found, 99) * 1e3}
            for kind, found in self.tally.latencies.items()
        }
        return {
            "name": self.name,
            "clean": self.clean,
            "tally": tally,
            "acknowledged": self.ledger.acknowledged,
            "verdict": self.verdict.as_json(),
            **self.facts,
        }


class Sampler:
    """The process that watches who has the palace open."""

    def __init__(self, world: World) -> None:
        script = Path(__file__).resolve().parent / "sampler.py"
        argv = [sys.executable, "-I", "-S", str(script)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        order = json.dumps([str(world.base), SAMPLE_S, f"{world.root}/"])
        self._process.stdin.write(order.encode() + b"\n")  # not in argv: it is no process of that world
        self._process.stdin.flush()

    def stop(self) -> dict[str, Any]:
        out, _ = self._process.communicate(timeout=30)
        found: dict[str, Any] = json.loads(out)
        return found


def storm(
    kind: str,
    which: Engine,
    *,
    sessions: int,
    seconds: float,
    kills: list[str],
    seed: int,
    palace: Path | None = None,
    backend: str = CHROMA,
    keep: bool = False,
) -> Result:
    """One storm on a palace of its own."""
    ledger, tally = Ledger(), Tally()
    facts: dict[str, Any] = {"kind": kind, "engine": which.version, "sessions": sessions, "load": os.getloadavg()[0]}
    with backend_env(backend) as env, World(which, kind, palace=palace, env=env, keep=keep) as world:
        keep_address(world, env)
        if kind == HUB:
            world.start_hub()
        sampler = Sampler(world)
        clients = [Client(index, seed, ledger, tally) for index in range(sessions)]
        weather = Storm(world, clients, seconds, _accidents(kills, seconds, facts))
        try:
            weather.run()
            facts["tuneups"] = _tuneups(world)
            world.end_servers()
        finally:
            facts["owners"] = sampler.stop()
        facts["seconds"] = weather.ended_s
        begun = time.monotonic()
        verdict = check(world.home, which, ledger, graph_inside=kind == HUB, backend=backend, env=env)
        facts["verified_s"] = round(time.monotonic() - begun, 1)
    name = f"{kind} {which.version}{'' if backend == CHROMA else f' {backend}'}"
    return Result(name, tally, ledger, verdict, facts)


def _tuneups(world: World) -> list[str]:
    if world.kind != BROKER:
        return []
    try:
        engine_status = world.status()["engine"]
    except OSError:
        return ["(no broker answers)"]
    return [entry["name"] for entry in engine_status.get("tuneups", []) if entry.get("applied")]


# -- accidents


def _accidents(kills: list[str], seconds: float, facts: dict[str, Any]) -> list[tuple[float, Any]]:
    facts["killed"] = []
    facts["memory"] = {"rss": 0.0, "pss": 0.0}

    def weigh(weather: Storm) -> None:
        facts["memory"] = weather.world.memory_mb()

    def accident(what: str) -> Any:
        def happen(weather: Storm) -> None:
            facts["killed"].append(f"{what}: {_kill(weather, what)}")

        return happen

    step = seconds / (len(kills) + 1)
    planned = [(step * (number + 1), accident(what)) for number, what in enumerate(kills)]
    return sorted([*planned, (seconds * 0.8, weigh)], key=lambda pair: pair[0])


def _kill(weather: Storm, what: str) -> str:
    """kill -9; what was hit, in words."""
    world = weather.world
    if what == "shim" or world.kind == BARE:
        weather.kill_session()
        return "one session"
    if world.kind == HUB:
        assert world.hub is not None
        pids = [world.hub.pid]
    else:
        brokers, engines = world.brokers(), world.engines()
        pids = (brokers if what != "engine" else []) + (engines if what != "broker" else [])
    hit = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            hit.append(" ".join(proctools.describe(pid).split())[:100])
            os.kill(pid, signal.SIGKILL)
    return "; ".join(hit) or "nobody there"


# -- the command


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--engine", action="append", help="3.4.0, newest, or a path; may be repeated (default: newest)")
    parser.add_argument("--against", choices=[*KINDS, "both", "all"], default=BROKER, help="both: broker and bare")
    parser.add_argument("--backend", choices=BACKENDS, default=CHROMA, help="where mempalace keeps the drawers")
    parser.add_argument("--kill", action="append", choices=KILLS, default=[], help="kill -9 in the middle; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--palace", type=Path, help="start from a copy of this palace directory")
    parser.add_argument("--keep", action="store_true", help="leave the palace and the logs there, and say where")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def plan(args: argparse.Namespace) -> list[tuple[str, Engine]]:
    """The storms to run, in order."""
    names = {"both": (BARE, BROKER), "all": (BARE, HUB, BROKER)}.get(args.against, (args.against,))
    names_of_engines = args.engine or [VERSIONS[-1] if args.backend == CHROMA else DATABASES]
    pairs = [(kind, engine(name)) for name in names_of_engines for kind in names]
    return [(kind, which) for kind, which in pairs if kind != HUB or which.has_hub]


def report(results: list[Result]) -> str:
    """The side-by-side table, and what to read beside it."""
    rows = [result.rows() for result in results]
    head = ["", *(result.name for result in results)]
    lines = [table(head, [[line[0][0], *(value for _, value in line)] for line in zip(*rows, strict=True)])]
    for result in results:
        notes = [f"{count} x {why}" for why, count in result.tally.reasons.most_common(4)]
        notes += result.verdict.trouble + [f"killed {what}" for what in result.facts["killed"]]
        notes += [f"two owners: {result.facts['owners']['owners']}"] * (result.facts["owners"]["shared"] > 0)
        lines += [f"{result.name}: {note}" for note in notes]
    if any(result.facts["kind"] == HUB for result in results):
        lines.append(NOTE_HUB)
    if any(result.facts["engine"].startswith("3.4.") for result in results):
        lines.append(NOTE_340)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    results = []
    facts = machine()
    if not args.json:
        print(machine_line(), file=sys.stderr)
    try:
        for kind, which in plan(args):
            print(f"storm: {args.sessions} sessions, {args.seconds:g} s, {kind} {which.version} ...", file=sys.stderr)
            results.append(
                storm(
                    kind,
                    which,
                    sessions=args.sessions,
                    seconds=args.seconds,
                    kills=args.kill,
                    seed=args.seed,
                    palace=args.palace,
                    backend=args.backend,
                    keep=args.keep,
                )
            )
    except Lacking as exc:
        print(exc, file=sys.stderr)
        return 2
    if args.json:
        print(dump({"machine": facts, "storms": [result.as_json() for result in results]}))
    else:
        print(machine_line().split("; load")[0])
        print(report(results))
    return 0 if all(result.clean for result in results if result.facts["kind"] == BROKER) else 1


if __name__ == "__main__":
    sys.exit(main())
