"""Snapshots and restores in the middle of a storm, with kill -9 at random instants of whoever takes part."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import time

import pytest

from tests.harness import World, eventually
from tests.load import Load
from tests.proc.test_backup import backup

pytestmark = [pytest.mark.engine, pytest.mark.slow]
KILLS = 12
PATIENCE_S = 300.0
COMMAND, ENGINE, BROKER = "command", "engine", "broker"

Token = tuple[int, str]  # of a session


class Promise:
    """What the palace has to hold, whatever is killed.

    A restore takes writes back: those that its snapshot lacks may be gone from then on, and need not be.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._in_snapshot: dict[str, set[Token]] = {}
        self._excused: set[Token] = set()

    def acknowledged(self) -> set[Token]:
        found: set[Token] = set()
        for session in self._load.sessions:
            for kept in (session.drawers, session.diary, session.facts):
                found |= {(session.number, token) for token in list(kept)}
        return found

    def snapshot_made(self, name: str, acknowledged_before: set[Token]) -> None:
        self._in_snapshot[name] = acknowledged_before - self._excused

    def restore_tried(self, name: str) -> None:
        """Call it once a later engine serves."""
        self._excused |= self.acknowledged() - self._in_snapshot[name]

    def forget_what_may_be_gone(self) -> int:
        """Leave only what `Load.verify` has to find; how much that is."""
        for session in self._load.sessions:
            for number, token in self._excused:
                if number == session.number:
                    session.drawers.pop(token, None)
                    session.diary.pop(token, None)
                    session.facts.discard(token)
        return len(self.acknowledged())


def kill(world: World, victim: str, process: subprocess.Popen[bytes]) -> None:
    pid = process.pid
    if victim != COMMAND:
        with contextlib.suppress(OSError, AssertionError):  # nobody there at this moment
            broker = world.broker()
            pid = broker.pid if victim == BROKER else int(broker.status()["engine"]["pid"] or pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def interrupted(
    world: World, victim: str, after_s: float, kills: list[str], *words: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `backup ...`, and kill the victim in the middle of it, unless it was quicker; note that in `kills`."""
    argv = [world.program("mempalace-broker"), "backup", *words, "--json"]
    with subprocess.Popen(
        argv, env=world.env, cwd=world.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        if process.poll() is None:
            kill(world, victim, process)
            kills.append(f"{words[0]}: {victim}")
        out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


@pytest.mark.timeout(3600)
def test_snapshots_and_restores_amid_a_storm_of_writes_and_kills(world: World) -> None:
    seed = os.environ.get("MPB_SEED") or str(time.time_ns())
    rng = random.Random(seed)
    kills: list[str] = []
    finished: list[str] = []
    took = {}
    name = ""
    with Load(world, sessions=4, patience=PATIENCE_S) as load:
        promise = Promise(load)
        load.wait_writes(12, PATIENCE_S)
        for step in ("create", "restore"):  # how long they take here, so that the kills fall into them
            before, began = promise.acknowledged(), time.monotonic()
            said = backup(
                world, *([step, "--untried"] if step == "create" else [step, name, "--yes"]), timeout=PATIENCE_S
            )
            took[step] = time.monotonic() - began
            name = said["name"]
            load.wait_writes(4, PATIENCE_S)
            promise.snapshot_made(name, before) if step == "create" else promise.restore_tried(name)
        for number in itertools.count():
            if len(kills) >= KILLS:
                break
            step = ("create", "restore")[number % 2]
            victim = rng.choice((COMMAND, COMMAND, ENGINE, BROKER))
            words = ("create", "--untried") if step == "create" else ("restore", name, "--yes")
            before = promise.acknowledged()
            done = interrupted(world, victim, rng.uniform(0.05, took[step]), kills, *words)
            load.wait_writes(4, PATIENCE_S)  # an engine serves again
            if step == "restore":
                promise.restore_tried(name)
            elif done.returncode == 0:
                name = json.loads(done.stdout)["name"]
                promise.snapshot_made(name, before)
                finished.append(name)
        eventually(lambda: not list(world.private.rglob("*restore.json")), what="no restore left undone")
        load.wait_writes(8, PATIENCE_S)
    print(f"seed {seed}; {len(finished)} snapshots finished; load {os.getloadavg()[0]:.1f}; " + "; ".join(kills))
    assert promise.forget_what_may_be_gone() >= 8
    load.verify()
    for snapshot in backup(world, "list")["snapshots"]:
        assert backup(world, "verify", snapshot["name"], timeout=PATIENCE_S)["good"] is True
    last = backup(world, "create", timeout=PATIENCE_S)
    assert last["tried"] is True, "a fresh engine opens the palace, reads drawers and finds them"
    backup(world, "restore", last["name"], "--yes", timeout=PATIENCE_S)
    load.verify()
