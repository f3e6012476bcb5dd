"""Starts, signals and reaps the engine, as the supervisor decides.

A start takes engine.lock, confirms the lease, reads the journal, finds mempalace, and spawns the child; an end reads
the journal again. Whatever of this may take long runs in a thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from ..errors import BrokerError, EngineNotFound, StateRootError
from ..system.command_note import command_at_work
from ..system.find_engine import SETTING, find_engine
from ..system.find_palace import graph_path
from ..system.lock import FileLock, read_body
from ..system.lock_notes import read_holder, write_holder
from ..system.palace_stores import check_stores
from ..system.paths import home_of
from ..system.pending_restore import finish_restore
from ..system.process_ids import ALIVE, process_of, process_state
from .engine_process import EngineProcess
from .journal_reader import JournalEntries, read_journal
from .log_lines import ENGINES_WORDS
from .machine.supervisor import EngineAction
from .tasks import wait_until

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from ..protocol.engine_frames import Frame
    from ..protocol.palace import PalaceIdentity
    from ..settings import BrokerSettings
    from ..system.clock import Clock
    from ..system.find_engine import EngineCommand
    from ..system.paths import StateFiles
    from .lease_keeper import LeaseKeeper
    from .machine.dispatcher import Dispatcher
    from .tasks import Tasks

LEAVES_S = 5.0
REAP_S = 5.0  # a killed engine that is not gone by then hangs in the kernel
_LEASE_LOST = "the palace is no longer ours"


class EngineHost:
    """The engine slot of one broker. Methods belong to the loop, unless they say otherwise.

    Args:
        turn: called after every event, so that its effects are carried out.
        covers: whether the journal in our state root holds all that earlier brokers of the palace wrote.

    Attributes:
        starting: a start is under way. process: the engine, None where there is none.
        command: the interpreter with mempalace that was found last.
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
        tasks: Tasks,
        turn: Callable[[], None],
        covers: bool,
    ) -> None:
        self.dispatcher = dispatcher
        self.starting = False
        self.process: EngineProcess | None = None
        self.command: EngineCommand | None = None
        self._identity = identity
        self._files = files
        self._settings = settings
        self._env = env
        self._clock = clock
        self._log = log
        self._tasks = tasks
        self._turn = turn
        self._covers = covers

    def locate(self) -> str:
        """Find mempalace; return its version, or "" if that is not known yet (a start reports what is wrong)."""
        try:
            self.command = self._find()
        except EngineNotFound:
            return ""
        return self.command.version or ""

    def _find(self) -> EngineCommand:
        env = {**self._env, SETTING: self._settings.engine}
        return find_engine(env, sys.executable, self._env.get("PATH", os.defpath))

    def control(self, action: EngineAction, lease: LeaseKeeper) -> None:
        """Carry out one action of the supervisor."""
        if action == EngineAction.SPAWN:
            if not self.starting:
                self.starting = True
                self._tasks.start("engine-start", self._start(lease))
        elif action == EngineAction.KILL_ORPHAN:
            self._tasks.start("engine-orphan", asyncio.to_thread(self._kill_orphan))  # macOS asks `ps` about it
        elif self.process is not None:
            self._log.warning("engine: %s (%s)", action, self.dispatcher.supervisor.reason)
            self.process.signal(signal.SIGTERM if action == EngineAction.TERMINATE else signal.SIGKILL)

    # -- one start

    async def _start(self, lease: LeaseKeeper) -> None:
        lock = FileLock(self._files.engine_lock)
        try:
            command = command_at_work(self._files)
            if not command and lock.try_acquire():
                self.dispatcher.supervisor.holder = ""
                lease.engine_lock_taken()
                await self._start_under(lock, lease)
            else:
                await self._wait_for_lock(command, lease)
        except BrokerError as exc:
            self._log.error("no engine: %s", exc)
            passing = isinstance(exc, StateRootError | EngineNotFound)  # room may be made, mempalace be installed
            self._failed(exc.message.rstrip("."), exc.hint, permanent=not passing)
        except OSError as exc:
            self._log.error("cannot start the engine: %s", exc)
            self._failed(f"cannot start the engine: {exc}", "", permanent=False)
        finally:
            lock.close_copy()
            self.starting = False
        self._turn()

    async def _wait_for_lock(self, command: str, lease: LeaseKeeper) -> None:
        first = command and not self.dispatcher.lent
        if first and not await _confirmed(lease):  # the lease has to say that the palace is in use
            self._give_up()
        else:
            holder = command or holder_text(self._files.engine_lock)
            self.dispatcher.lock_busy(self._clock.monotonic(), holder, is_engine=not command)

    async def _start_under(self, lock: FileLock, lease: LeaseKeeper) -> None:
        if not await _confirmed(lease):
            self._give_up()
            return
        if not self.dispatcher.settled:
            await self._load_journal()
        palace = self._identity.path
        graph = graph_path(palace, self._identity.by, home_of(self._env))
        if moved := await asyncio.to_thread(finish_restore, self._files.restore):
            self._log.warning("finished an interrupted restore of the palace: moved %d names", moved)
        await asyncio.to_thread(check_stores, palace, graph)
        self.command = await asyncio.to_thread(self._find)
        spawn = _Spawn(self, lock, self.command)
        if not await _confirmed(lease, spawn):
            self._give_up()
            return
        if spawn.failure is not None:
            raise spawn.failure
        self._spawned(spawn.process, self.command)
        await self._note_holder(lock, spawn.process.pid)

    def new_process(self) -> EngineProcess:
        """A process that reports to us."""
        return EngineProcess(
            asyncio.get_running_loop(),
            on_frames=self._frames,
            on_garbled=self._garbled,
            on_exit=self._exited,
            on_log=lambda text: self._log.info("engine: %s", text, extra={ENGINES_WORDS: text}),
        )

    def spawn(self, process: EngineProcess, lock: FileLock, command: EngineCommand) -> None:
        """Spawn the child. Runs in the thread of the lease; from here on `kill_now` finds it. Raises OSError."""
        process.spawn(
            command,
            self._identity,
            lock,
            env=self._env,
            own=self._settings.env,
            journal=self._files.journal,
            tune=self._settings.tune,
            power_safe=self._settings.power_safe,
        )
        self.process = process

    def _spawned(self, process: EngineProcess, command: EngineCommand) -> None:
        process.watch()
        self.dispatcher.spawned(self._clock.monotonic(), process.pid)
        self._log.info(
            "engine %d started: pid %d, %s (%s)",
            self.dispatcher.supervisor.generation,
            process.pid,
            command.interpreter,
            command.source,
        )

    async def _note_holder(self, lock: FileLock, pid: int) -> None:
        """Name the engine in its lock, for those who wait for an orphan. In a thread: macOS asks `ps` about it."""
        try:
            await asyncio.to_thread(lambda: write_holder(lock, process_of(pid)))
        except StateRootError as exc:
            self._log.warning("%s", exc)

    def _give_up(self) -> None:
        self.dispatcher.supervisor.end(self._clock.monotonic(), _LEASE_LOST, replace=False)

    def _failed(self, reason: str, hint: str, *, permanent: bool) -> None:
        self.dispatcher.unstartable(self._clock.monotonic(), reason, hint, permanent=permanent)

    def kill_now(self) -> bool:
        """SIGKILL the engine and wait for its end; whether it is gone. For any thread; `_exited` follows."""
        process = self.process
        return process is None or process.kill_now(REAP_S)

    # -- the end

    @property
    def palace_is_free(self) -> bool:
        """Whether no engine of ours lives, and no command has the palace for itself, or is about to get it."""
        return self.process is None and not (self.dispatcher.lent or command_at_work(self._files))

    async def end(self, lease: LeaseKeeper) -> None:
        """End the engine because the broker leaves: in order if the palace is still ours, and by signals if need be."""
        await wait_until(lambda: not self.starting, LEAVES_S, self._clock)
        if self.process is not None:
            lease.confirm(self._let_finish)
            await wait_until(lambda: self.process is None, LEAVES_S, self._clock)
        self.dispatcher.supervisor.end(self._clock.monotonic(), "the broker leaves", replace=False)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process is not None:
                self.process.signal(number)
                await wait_until(lambda: self.process is None, LEAVES_S, self._clock)

    def _let_finish(self, ours: bool) -> None:
        if ours and self.process is not None:
            self.process.close_input()

    # -- what the child does

    def _frames(self, frames: list[Frame]) -> None:
        now = self._clock.monotonic()
        for frame in frames:
            self.dispatcher.frame(frame, now)
        self._turn()

    def _garbled(self, what: str) -> None:
        self._log.error("engine: garbled output: %s", what, extra={ENGINES_WORDS: what})
        self.dispatcher.garbled(what, self._clock.monotonic())
        self._turn()

    def _exited(self, how: str) -> None:
        self._log.info("engine %d ended: %s", self.dispatcher.supervisor.generation, how)
        self._tasks.start("engine-exit", self._settle(how))

    async def _settle(self, how: str) -> None:
        """Find out what became of the calls in a dead engine. Calls that are sent meanwhile reach nobody."""
        inside = list(self.dispatcher.scheduler.running.values())
        entries = await self._read_journal() or JournalEntries({}, set(), float("inf"))
        unproven = {call.key for call in inside if call.started < entries.covered_from}
        self.process = None
        self.dispatcher.exited(self._clock.monotonic(), how, entries.ended, entries.begun | unproven)
        self._turn()

    # -- the journal

    async def _load_journal(self) -> None:
        first = not read_body(self._files.engine_lock)  # no engine has been here: nothing can be missing
        found = await self._read_journal()
        now = self._clock.monotonic()
        entries = found or JournalEntries({}, set(), float("-inf") if first else now)
        self.dispatcher.journal(entries.ended, entries.begun, now, entries.covered_from if self._covers else now)

    async def _read_journal(self) -> JournalEntries | None:
        return await asyncio.to_thread(read_journal, self._files.journal, self._clock, self._log)

    # -- the engine of an earlier broker

    def _kill_orphan(self) -> None:
        from ..system.process_command import is_ours  # late: psutil costs every start milliseconds

        who = read_holder(self._files.engine_lock)
        if who is None or process_state(who) != ALIVE:
            self._log.warning("engine.lock is held by a process that left no name; waiting on")
            return
        if not is_ours(who.pid):
            self._log.warning("engine.lock names pid %d, which is not an engine of ours; waiting on", who.pid)
            return
        self._log.warning("ending the engine of an earlier broker, pid %d: it did not finish in time", who.pid)
        try:
            os.kill(who.pid, signal.SIGKILL)
        except OSError as exc:
            self._log.error("cannot end pid %d: %s", who.pid, exc)


class _Spawn:
    """One spawn in the thread of the lease, and what came of it."""

    def __init__(self, host: EngineHost, lock: FileLock, command: EngineCommand) -> None:
        self.process = host.new_process()
        self.failure: OSError | None = None
        self._host = host
        self._lock = lock
        self._command = command

    def __call__(self) -> None:
        try:
            self._host.spawn(self.process, self._lock, self._command)
        except OSError as exc:
            self.failure = exc


async def _confirmed(lease: LeaseKeeper, when_clear: Callable[[], None] | None = None) -> bool:
    """Whether something may go to the engine now; `when_clear` as in LeaseKeeper.confirm."""
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def done(clear: bool) -> None:
        if not answer.done():  # else the broker has left meanwhile
            answer.set_result(clear)

    lease.confirm(done, when_clear)
    return await answer


def holder_text(path: str) -> str:
    """The holder of a lock file in words."""
    who = read_holder(path)
    return f"pid {who.pid}" if who is not None else "an unknown process"
