"""Carries out what supervision wants: take engine.lock, find mempalace, start the child, signal it, reap it."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from ..errors import BrokerError, EngineNotFound, StateRootError
from ..protocol import journal
from ..system.atomic_files import read_bytes
from ..system.find_engine import SETTING, find_engine
from ..system.lock import FileLock, read_body
from ..system.lock_notes import read_holder, write_holder
from ..system.process_ids import ALIVE, process_of, process_state
from .engine_process import EngineProcess
from .machine import supervisor as sv

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from ..protocol.engine_frames import Frame
    from ..protocol.palace import PalaceIdentity
    from ..settings import BrokerSettings
    from ..system.clock import Clock
    from ..system.find_engine import EngineCommand
    from ..system.paths import StateFiles
    from .machine.dispatcher import Dispatcher

_NOTHING: dict[str, bytes | None] = {}
REAP_S = 5.0  # a killed engine that is not gone by then hangs in the kernel
_JOURNAL_LIMIT = 4 * journal.ROTATE_BYTES


class EngineHost:
    """One engine slot of the broker.

    Args:
        turn: called after every event, so that the hub's effects are carried out.
        covers: whether the journal in our state root holds all that earlier brokers of the palace wrote.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        identity: PalaceIdentity,
        files: StateFiles,
        settings: BrokerSettings,
        env: Mapping[str, str],
        clock: Clock,
        log: logging.Logger,
        turn: Callable[[], None],
        covers: bool,
    ) -> None:
        self.unlocked: Callable[[], None] = lambda: None  # called with engine.lock in hand, before each start
        self.dispatcher = dispatcher
        self.process: EngineProcess | None = None
        self.command: EngineCommand | None = None
        self._identity = identity
        self._files = files
        self._settings = settings
        self._env = env
        self._clock = clock
        self._log = log
        self._turn = turn
        self._covers = covers

    def locate(self) -> str:
        """Find mempalace; its version, or "" where that is not known yet (the start will tell what is wrong)."""
        try:
            self.command = self._find()
        except EngineNotFound:
            return ""
        return self.command.version or ""

    def _find(self) -> EngineCommand:
        env = dict(self._env)
        env[SETTING] = self._settings.engine
        return find_engine(env, sys.executable, self._env.get("PATH", os.defpath))

    def carry_out(self, what: str) -> None:
        """One effect of supervision."""
        if what == sv.SPAWN:
            self._spawn()
        elif what == sv.KILL_ORPHAN:
            self._kill_orphan()
        elif self.process is not None:
            self._log.warning("engine: %s (%s)", what, self.dispatcher.supervisor.reason)
            self.process.signal(signal.SIGTERM if what == sv.TERM else signal.SIGKILL)

    def _spawn(self) -> None:
        now = self._clock.monotonic()
        lock = FileLock(self._files.engine_lock)
        try:
            if not lock.try_acquire():
                self.dispatcher.lock_busy(now, holder_text(self._files.engine_lock))
                return
            if not self.dispatcher.permit():
                self.dispatcher.supervisor.end(now, "the palace is no longer ours", replace=False)
                return
            self.unlocked()
            if not self.dispatcher.settled:
                self._load_journal(now)
            self.command = self._find()
            self._start(lock)
        except BrokerError as exc:
            self._log.error("no engine: %s", exc)
            passing = isinstance(exc, StateRootError | EngineNotFound)  # room may be made, mempalace be installed
            self.dispatcher.unstartable(now, exc.message.rstrip("."), exc.hint, permanent=not passing)
        except OSError as exc:
            self._log.error("cannot start the engine: %s", exc)
            self.dispatcher.unstartable(now, f"cannot start the engine: {exc}", "", permanent=False)
        finally:
            lock.close_copy()

    def _start(self, lock: FileLock) -> None:
        assert self.command is not None
        import asyncio

        process = EngineProcess(
            asyncio.get_running_loop(),
            on_frames=self._frames,
            on_garbled=self._garbled,
            on_exit=self._exited,
            on_log=lambda text: self._log.info("engine: %s", text),
        )
        env = {name: value for name, value in self._env.items() if not name.startswith("MEMPALACE_BROKER_START")}
        process.start(
            self.command, self._identity, lock, env=env, journal=self._files.journal, tune=self._settings.tune
        )
        self.process = process
        self.dispatcher.spawned(self._clock.monotonic(), process.pid)
        self._sign(lock, process.pid)
        self._log.info(
            "engine %d started: pid %d, %s (%s)",
            self.dispatcher.supervisor.generation,
            process.pid,
            self.command.interpreter,
            self.command.source,
        )

    def _sign(self, lock: FileLock, pid: int) -> None:
        """Say in engine.lock who holds it. For those who wait for an orphan: the lock itself does not need it."""
        try:
            write_holder(lock, process_of(pid))
        except StateRootError as exc:
            self._log.warning("%s", exc)

    def kill_now(self) -> bool:
        """SIGKILL the engine and wait for its end; whether it is gone. The loop hears of it as of any other end."""
        return self.process is None or self.process.kill_now(REAP_S)

    # -- what the child does

    def _frames(self, frames: list[Frame]) -> None:
        now = self._clock.monotonic()
        for frame in frames:
            self.dispatcher.frame(frame, now)
        self._turn()

    def _garbled(self, what: str) -> None:
        self._log.error("engine: garbled output: %s", what)
        self.dispatcher.garbled(what, self._clock.monotonic())
        self._turn()

    def _exited(self, how: str) -> None:
        self._log.info("engine %d ended: %s", self.dispatcher.supervisor.generation, how)
        self.process = None
        running = self.dispatcher.scheduler.running.values()
        ended, begun, covered = self._read_journal() or (_NOTHING, set[str](), float("inf"))
        begun |= {call.key for call in running if call.started < covered}  # nothing proves that these had not begun
        self.dispatcher.exited(self._clock.monotonic(), how, ended, begun)
        self._turn()

    # -- the journal

    def _load_journal(self, now: float) -> None:
        first = not read_body(self._files.engine_lock)  # no engine has been here: nothing can be missing
        nothing_proven = (_NOTHING, set[str](), float("-inf") if first else now)
        ended, begun, covered = self._read_journal() or nothing_proven
        self.dispatcher.journal(ended, begun, now, covered if self._covers else now)

    def _read_journal(self) -> tuple[dict[str, bytes | None], set[str], float] | None:
        """(ended, begun, covered from): the older file first. Monotonic seconds since when nothing is missing.

        None where there is none, or it can't be read.
        """
        covered = float("-inf")
        data = b""
        older = self._files.journal + ".1"
        try:
            data = read_bytes(older, _JOURNAL_LIMIT) or b""
            if data:
                age = max(0.0, self._clock.wall() - os.stat(older).st_mtime)
                covered = self._clock.monotonic() - age
            current = read_bytes(self._files.journal, _JOURNAL_LIMIT)
        except OSError as exc:
            self._log.error("cannot read the journal of writes: %s; earlier outcomes are unknown", exc)
            return None
        if current is None:
            return None
        return *journal.parse(data + current), covered

    # -- the engine of an earlier broker

    def _kill_orphan(self) -> None:
        who = read_holder(self._files.engine_lock)
        if who is None or process_state(who) != ALIVE:
            self._log.warning("engine.lock is held by somebody who left no name; waiting on")
            return
        self._log.warning("ending the engine of an earlier broker, pid %d: it did not finish in time", who.pid)
        try:
            os.kill(who.pid, signal.SIGKILL)
        except OSError as exc:
            self._log.error("cannot end pid %d: %s", who.pid, exc)


def holder_text(path: str) -> str:
    """The holder of a lock file in words."""
    who = read_holder(path)
    return f"pid {who.pid}" if who is not None else "an unknown process"
