"""Host and container write to one palace at once, with the broker and without it: what is left of the writes?

    python benchmarks/smoke_two_sides.py                    a container: the same kernel, another path and HOME
    python benchmarks/smoke_two_sides.py --vm               a virtual machine: another kernel, the palace by virtiofs
    python benchmarks/smoke_two_sides.py --only broker --seconds 20

Half of the sessions run on the host, half in the container, each with the palace where its user has it. `bare`: every
session is a mempalace-mcp of its own, as agents have it without us. Each run has a palace of its own, never yours.
Afterwards a fresh engine must find every acknowledged write; Chroma itself must reach every drawer by its own vector.
Linux, root; with --vm also what `python3 dev.py vm` makes, and no hardware acceleration: an engine in the guest embeds
one text in half a minute, so a bare guest writes facts more than drawers.
Exit code 0: the broker's palace is clean; 1: something was lost or broken; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import (
    MODEL,
    VERSIONS,
    Engine,
    Lacking,
    dump,
    engine,
    fmt,
    machine,
    machine_line,
    model,
    own_bin,
    table,
)
from benchmarks.driver import Session
from benchmarks.storm_check import Verdict, check
from benchmarks.storm_load import Client, Ledger, Storm, Tally
from benchmarks.world import BARE, BROKER, World
from tests import netbox
from tests.netbox import Box
from tests.proctools import OwnerSampler, eventually
from tests.vm import machine as vm
from tests.vm.machine import Machine, Share

SAMPLE_S = 0.02
INSIDE = f"{netbox.HOME}/.mempalace"
SLOW_MIX = {"kg_add": 8, "kg_query": 2, "add": 1, "diary": 1, "get": 1, "search": 1}  # for an engine in the guest
SLOW_GRACE_S = 400.0


class TwoSides(World):
    """A palace, and servers on it by turns on the host and in a container. The palace is found by default."""

    def __init__(self, which: Engine, kind: str, *, in_vm: bool) -> None:
        super().__init__(which, kind)
        (self.base / "config.json").write_text("{}", encoding="utf-8")  # a path in it would hold for one side only
        self._in_vm = in_vm
        self._stack = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.place: Box | Machine
        if self._in_vm:
            self.place = self._stack.enter_context(self._machine())
        else:
            self.place = self._stack.enter_context(Box("container", {self.base: INSIDE}))
        folder = f"{self.place.home}/{MODEL}"
        self.place.run(["mkdir", "-p", os.path.dirname(folder)])
        self.place.run(["ln", "-s", str(model()), folder])
        return self

    @contextlib.contextmanager
    def _machine(self) -> Iterator[Machine]:
        from tests.net.sshd import sshd
        from tests.vm.login import DOOR, give_login, name_command

        folder = Path(tempfile.mkdtemp(prefix="mpbd-", dir="/tmp"))
        try:
            with (
                sshd(folder / "ssh", env={"PATH": netbox.PATH}) as serving,
                Machine([Share(self.base, INSIDE)], doors={DOOR: serving.port}) as guest,
            ):
                if self.kind == BROKER:
                    give_login(guest, serving)
                    command = own_bin() / "mempalace-broker"
                    name_command(guest, self.root / "as-user", command, self.env)
                yield guest
        finally:
            shutil.rmtree(folder)

    def inside(self, index: int) -> bool:
        """Whether the session with this index runs in the container."""
        return index % 2 == 1

    def start(self) -> Session:
        """The next session: on the host, then in the container, and so on."""
        self._count += 1
        if not self.inside(self._count - 1):
            return super().start()
        env = {name: value for name, value in self.env.items() if name != "HOME"}
        env["PATH"] = f"{netbox.PATH}:{self.root}/bin"  # a folder that is not there: by it we know our processes
        argv = self.place.argv(self.argv, env)
        session = Session(argv, env=self.env, cwd=self.root, log=self.root / f"{self._count}.inside.stderr")
        self.sessions.append(session)
        return session

    def end_servers(self) -> None:
        """End the sessions, then the brokers of both sides, then the container."""
        for session in self.sessions:
            session.end()
        for pid in self.brokers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.brokers(), 30, "the end of the broker")
        self._stack.close()
        super().end_servers()


class Result:
    """One storm and what is left of it."""

    def __init__(self, name: str, ledger: Ledger, tally: Tally, watch: OwnerSampler, verdict: Verdict) -> None:
        self.name = name
        self.ledger = ledger
        self.tally = tally
        self.watch = watch
        self.verdict = verdict
        standing = len(ledger.drawers) - len(ledger.maybe_gone & set(ledger.drawers))
        self.promised = standing + len(ledger.facts) + len(ledger.diary)

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing broken, one opener."""
        return self.verdict.clean and self.watch.shared == 0 and not self.tally.astray

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        if not self.verdict.clean:
            return "DAMAGED"
        return "clean" if self.clean else "several openers"

    def rows(self) -> dict[str, str]:
        tally, verdict, watch = self.tally, self.verdict, self.watch
        calls, failed = sum(tally.calls.values()), sum(tally.failed.values())
        return {
            "calls": fmt(calls),
            "failed": f"{fmt(failed)} ({failed / max(1, calls):.1%})",
            "outcome unknown": fmt(tally.unknown),
            "writes acknowledged": fmt(self.ledger.acknowledged),
            "of them to be there at the end": fmt(self.promised),
            "found afterwards": fmt(self.promised - len(verdict.lost)),
            "lost": fmt(len(verdict.lost)),
            "there, but no longer to be found": fmt(len({*verdict.unfindable, *verdict.unreachable})),
            "wrong text / doubled / undead": f"{len(verdict.wrong)} / {len(verdict.doubled)} / {len(verdict.ghosts)}",
            "sqlite complaints": fmt(len(verdict.corrupt)),
            ".corrupt / .drift snapshots": fmt(len(verdict.debris)),
            "openers at once, at most": fmt(watch.most),
            "samples with more than one": f"{fmt(watch.shared)} of {fmt(watch.samples)}",
            "verdict": self.word,
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "clean": self.clean,
            "rows": self.rows(),
            "worst_sample": self.watch.worst,
            "reasons": dict(self.tally.reasons),
            "verdict": self.verdict.as_json(),
        }


def storm(kind: str, which: Engine, *, in_vm: bool, sessions: int, seconds: float, seed: int) -> Result:
    """One storm on a palace of its own."""
    ledger, tally = Ledger(), Tally()
    slow = in_vm and kind == BARE
    with TwoSides(which, kind, in_vm=in_vm) as world:
        clients = [Client(index, seed, ledger, tally) for index in range(sessions)]
        for client in clients:
            if slow and world.inside(client.index):
                client.mix = SLOW_MIX
        with OwnerSampler(world.base, SAMPLE_S) as watch:
            Storm(world, clients, seconds, [], SLOW_GRACE_S if slow else 60.0).run()
            world.end_servers()
        verdict = check(world.home, which, ledger)
    return Result(f"{kind} {which.version}", ledger, tally, watch, verdict)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vm", action="store_true", help="a virtual machine instead of a container")
    parser.add_argument("--sessions", type=int, default=8, help="in all, half of them in the container")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--engine", default=VERSIONS[-1], help="3.4.0, newest, or a path (default: newest)")
    parser.add_argument("--only", choices=[BROKER, BARE])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if lack := vm.lacking() if args.vm else netbox.lacking():
        print(lack, file=sys.stderr)
        return 2
    results = []
    try:
        which = engine(args.engine)
        for kind in [args.only] if args.only else [BARE, BROKER]:
            print(f"{args.sessions} sessions, {args.seconds:g} s, {kind} ...", file=sys.stderr)
            results.append(
                storm(kind, which, in_vm=args.vm, sessions=args.sessions, seconds=args.seconds, seed=args.seed)
            )
    except Lacking as exc:
        print(exc, file=sys.stderr)
        return 2
    where = "host and virtual machine (virtiofs)" if args.vm else "host and container (bind mount)"
    if args.json:
        print(dump({"machine": machine(), "where": where, "storms": [result.as_json() for result in results]}))
    else:
        print(f"{where}; {machine_line().split('; load')[0]}")
        rows = [[name, *(result.rows()[name] for result in results)] for name in results[0].rows()]
        print(table(["", *(result.name for result in results)], rows))
        for result in results:
            notes = [f"{count} x {why}" for why, count in result.tally.reasons.most_common(3)]
            notes += result.verdict.trouble
            notes += [f"at once: {opener}" for opener in result.watch.worst] if result.watch.shared else []
            for note in notes:
                print(f"{result.name}: {note}")
    return 0 if all(result.clean for result in results if result.name.startswith(BROKER)) else 1


if __name__ == "__main__":
    sys.exit(main())
