"""The daemon, top down: take the palace, listen, serve, leave. All decisions are the hub's."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import EXIT_OK, BrokerError, StateRootError
from ..lease.files import flush_palace
from ..locality.mounts import folders_table
from ..locality.view import view_of
from ..protocol.hello import WIRE_VERSION
from ..protocol.record import DiscoveryRecord
from ..system.atomic_files import read_bytes, write_atomic
from ..system.clock import Clock, Deadline
from ..system.process_ids import this_process
from ..system.record_file import RecordFile
from .engine_host import EngineHost
from .lease_keeper import LeaseKeeper
from .listeners import Listeners
from .machine import effects as fx
from .machine.answers import Answers
from .machine.protocol import BrokerProtocol
from .machine.scheduler import Limits
from .machine.supervisor import Policy
from .snapshot import snapshot
from .tasks import Tasks

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from ..lease.acquire import AcquiredLease
    from ..protocol.framing import TooLong
    from ..protocol.palace import PalaceIdentity
    from ..settings import BrokerSettings
    from ..system.lock import FileLock
    from ..system.paths import StateFiles
    from .connection import Connection

SELF_CHECK_S = 2.0
ENGINE_LEAVES_S = 5.0
FLUSH_S = 1.0
_ANSWERS_LIMIT = 8 << 20


class App:
    """One broker. `owner` is broker.lock, held; the caller releases it after `run` and `let_go`."""

    def __init__(
        self,
        *,
        identity: PalaceIdentity,
        files: StateFiles,
        settings: BrokerSettings,
        env: Mapping[str, str],
        owner: FileLock,
        held: AcquiredLease,
        started_by: str,
        log: logging.Logger,
        since: int = 0,
    ) -> None:
        self.identity = identity
        self.files = files
        self.settings = settings
        self.log = log
        self.clock = Clock()
        self.started = self.clock.monotonic()
        self.stall_s = float(settings.client_stall_s)
        self.troubles: list[dict[str, str]] = []
        self.record_file = RecordFile(files.record)
        self.record = self._new_record(held.holder.epoch, started_by)
        answers = Answers()
        self.protocol = BrokerProtocol(
            identity=identity,
            limits=Limits(
                wait_s=settings.call_s,
                run_s=settings.call_s,
                init_s=settings.init_s,
                session_calls=settings.session_calls,
            ),
            policy=Policy(init_s=settings.init_s),
            rng=random.random,
            answers=answers,
            label=f"raw{self.record.record[:8]}x",
            hello={
                "record": self.record.record,
                "broker": __version__,
                "pid": os.getpid(),
                "lease": {"epoch": held.holder.epoch, "nonce": held.folder.me.nonce},
            },
            idle_s=float(settings.idle_s),
            drain_s=float(settings.drain_s),
            now=self.started,
            status=lambda now: snapshot(self, now),
        )
        self.engine = EngineHost(
            dispatcher=self.protocol.dispatcher,
            identity=identity,
            files=files,
            settings=settings,
            env=env,
            clock=self.clock,
            log=log,
            turn=self.turn,
            covers=since < held.holder.epoch,
        )
        self.lease = LeaseKeeper(
            held,
            kill=self.engine.kill_now,
            fenced=self._lease_lost,
            asked=self._handover_requested,
            log=log,
            resting=lambda: self.protocol.dispatcher.resting,
            flush=lambda: flush_palace(identity.path, identity.graph),
        )
        self.protocol.dispatcher.permit = self.lease.permit
        self.protocol.dispatcher.outcomes.since = since
        self.engine.unlocked = self.lease.unlocked
        self.protocol.view = view_of(identity.path)
        self.protocol.mounts = folders_table
        self._tasks = Tasks(self._task_failed)
        self.listeners = Listeners(self, files=files, settings=settings, clock=self.clock, tasks=self._tasks)
        self._owner = owner
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._quit: asyncio.Future[str] | None = None
        self._load_answers(answers)

    def _new_record(self, epoch: int, started_by: str) -> DiscoveryRecord:
        me = this_process()
        return DiscoveryRecord(
            record=os.urandom(16).hex(),
            epoch=epoch,
            pid=me.pid,
            start=me.start,
            boot=me.boot,
            pidns=me.pidns,
            host=socket.gethostname(),
            endpoints=[f"unix:{self.files.socket}"],
            wire=WIRE_VERSION,
            capabilities=["outcomes"],
            palace=self.identity.as_json(),
            broker_version=__version__,
            started_at=self.clock.wall(),
            started_by=started_by,
        )

    def _load_answers(self, answers: Answers) -> None:
        version = self.engine.locate()
        if not version:
            return
        answers.expect(version)
        try:
            answers.load(read_bytes(self.files.answers, _ANSWERS_LIMIT), version)
        except OSError as exc:
            self.log.warning("cannot read %s: %s", self.files.answers, exc)
        self.record.engine_version = version

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        return asyncio.get_running_loop()

    # -- startup, serve, leave

    async def run(self, on_ready: Callable[[str], None]) -> int:
        """Serve until told to leave, or idle; the exit code.

        Raises:
            StateRootError: socket or record can't be placed.
        """
        self._quit = self.loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.loop.add_signal_handler(number, self._signalled, number)
        self.loop.set_exception_handler(self._callback_failed)
        await self.listeners.open()
        try:
            self.record_file.remove_litter()
            self._publish()
        except OSError as exc:
            hint = "free space there, or make it writable"
            raise StateRootError(f"cannot write {self.files.record}: {exc.strerror or exc}.", hint=hint) from exc
        on_ready(self.record.endpoints[0])
        self.log.info("serving %s on %s, record %s", self.identity.path, self.files.socket, self.record.record)
        self._tasks.start("self-check", self._check_self())
        self.lease.start(self.loop)
        self.protocol.dispatcher.start(self.clock.monotonic())
        self.turn()
        reason = await self._quit
        self._tasks.cancel_all()
        await self._leave(reason)
        return EXIT_OK

    def _publish(self) -> None:
        self.record.endpoints = self.listeners.endpoints
        self.record.token = self.listeners.tcp.token or None
        self.record_file.publish(self.record)

    def _retire(self) -> None:
        try:
            self.record_file.remove(self.record)
        except OSError as exc:
            self.log.warning("cannot remove the record: %s", exc)
        self.listeners.close()

    async def _leave(self, reason: str) -> None:
        self._retire()
        conns = list(self.listeners.conns.values())
        for conn in conns:
            conn.close()
        await self._wait(FLUSH_S, lambda: not self.listeners.conns)
        for conn in list(self.listeners.conns.values()):
            conn.drop("the broker leaves")
        await self._end_engine()
        self.let_go()
        self._note_exit(reason)
        self.log.info("left: %s", reason)

    async def _end_engine(self) -> None:
        process = self.engine.process
        if process is not None and self.lease.permit():
            process.close_input()
            await self._wait(ENGINE_LEAVES_S, lambda: self.engine.process is None)
        self.protocol.dispatcher.supervisor.end(self.clock.monotonic(), "the broker leaves", replace=False)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.engine.process is not None:
                self.engine.process.signal(number)
                await self._wait(ENGINE_LEAVES_S, lambda: self.engine.process is None)

    async def _wait(self, seconds: float, done: Callable[[], bool]) -> None:
        deadline = Deadline.after(self.clock, seconds)
        while not done() and not deadline.expired:  # noqa: ASYNC110 - ended by callbacks of several owners, bounded
            await asyncio.sleep(0.005)

    def _note_exit(self, reason: str) -> None:
        note = {"reason": reason, "at": time.time(), "pid": os.getpid(), "version": __version__}
        try:
            write_atomic(self.files.exit, json.dumps(note).encode() + b"\n")
        except OSError as exc:
            self.log.warning("cannot write %s: %s", self.files.exit, exc)

    def let_go(self) -> None:
        """Release the lease, unless an engine of ours still lives: then others have to find out for themselves."""
        if self.engine.process is None:
            self.lease.release()

    def _lease_lost(self, why: str) -> None:
        """The engine is dead already. Later, for this may be in the middle of sending a call."""
        self.loop.call_soon(self._drain, f"the palace is no longer ours: {why}", True)

    def _handover_requested(self) -> None:
        self._drain("the palace's own machine asks for it", False)

    def _drain(self, reason: str, at_once: bool) -> None:
        self.protocol.drain(self.clock.monotonic(), reason, at_once=at_once)
        self.turn()

    def _signalled(self, number: int) -> None:
        self._drain(signal.Signals(number).name, self.protocol.state != "serving")

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        exc = context.get("exception")
        self.log.error("in the loop: %s", context.get("message"), exc_info=exc)
        self.trouble(f"an internal error: {exc!r}", "see `mempalace-broker logs`; please report it")

    def _task_failed(self, name: str, exc: BaseException) -> None:
        self.log.error("task %s failed: %r", name, exc, exc_info=exc)

    # -- events of the clients

    def opened(self, conn: Connection, pid: int) -> None:
        """A client was accepted."""
        self.listeners.conns[conn.number] = conn
        self.protocol.opened(conn.number, self.clock.monotonic(), pid)

    def lines(self, conn: Connection, lines: list[bytes | TooLong]) -> None:
        """Lines of a client."""
        self.protocol.lines(conn.number, lines, self.clock.monotonic())
        self.turn()

    def eof(self, conn: Connection) -> None:
        """A client sends no more."""
        self.protocol.half_closed(conn.number)
        self.turn()

    def closed(self, conn: Connection) -> None:
        """A client is gone."""
        if self.listeners.conns.pop(conn.number, None) is not None:
            self.protocol.closed(conn.number, self.clock.monotonic())
            self.turn()

    def session_name(self, conn: int) -> str:
        """The session behind a connection, for status."""
        session = self.protocol.sessions.get(conn)
        return session.name if session is not None else "(gone)"

    # -- effects and time

    def turn(self) -> None:
        """Carry out all effects, then see when time has something to do."""
        self.protocol.settle(self.clock.monotonic())
        while batch := self.protocol.take():
            out: dict[int, list[bytes]] = {}
            for effect in batch:
                if isinstance(effect, fx.Send):
                    out.setdefault(effect.conn, []).append(effect.data)
                elif isinstance(effect, fx.ToEngine):
                    if self.engine.process is not None:
                        self.engine.process.send(effect.data)
                else:
                    self._flush(out)
                    self._try(effect)
            self._flush(out)
            self.protocol.settle(self.clock.monotonic())
        if self.protocol.dispatcher.resting:
            self.lease.rest()
        self._book_timer()

    def _flush(self, out: dict[int, list[bytes]]) -> None:
        for number, lines in out.items():
            conn = self.listeners.conns.get(number)
            if conn is not None:
                conn.send(lines[0] if len(lines) == 1 else b"".join(lines))
        out.clear()

    def _try(self, effect: fx.Effect) -> None:
        try:
            self._carry_out(effect)
        except Exception as exc:
            self.log.error("cannot carry out %s: %r", effect, exc, exc_info=exc)
            self.trouble(f"an internal error: {exc!r}", "see `mempalace-broker logs`; please report it")

    def _carry_out(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Engine):
            self.engine.carry_out(effect.what)
        elif isinstance(effect, fx.Close):
            conn = self.listeners.conns.get(effect.conn)
            if conn is not None:
                self.log.debug("closing client %d: %s", effect.conn, effect.reason)
                conn.close()
        elif isinstance(effect, fx.Log):
            getattr(self.log, effect.level)(effect.text)
        elif isinstance(effect, fx.SaveAnswers):
            self._save_answers(effect.data)
        elif isinstance(effect, fx.Retire):
            self._retire()
        elif isinstance(effect, fx.Quit) and self._quit is not None and not self._quit.done():
            self._quit.set_result(effect.reason)

    def _save_answers(self, data: bytes) -> None:
        self.record.engine_version = self.protocol.answers.version
        try:
            write_atomic(self.files.answers, data)
            if self.protocol.state == "serving":
                self._publish()
        except OSError as exc:
            self.trouble(
                f"cannot write {self.files.answers}: {exc}",
                "free space in, or allow writing to, the state root",
            )

    def trouble(self, what: str, hint: str) -> None:
        """Something is degraded: said once in the log, and in status as long as we live."""
        entry = {"what": what, "hint": hint}
        if entry not in self.troubles:
            self.troubles.append(entry)
            self.log.warning("%s", what)

    def _book_timer(self) -> None:
        at = self.protocol.next_deadline()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        delay = max(0.0, at - self.clock.monotonic())
        self._timer = self.loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.protocol.tick(self.clock.monotonic())
        self.turn()

    async def _check_self(self) -> None:
        """Our name and record may vanish under us (cleaners, restores): while the lock is ours, put them back."""
        while self.protocol.state == "serving":
            await asyncio.sleep(SELF_CHECK_S)
            try:
                await self._check_once()
            except (OSError, BrokerError) as exc:
                self.trouble(f"the self-check failed: {exc}", "free space in, or allow writing to, the state root")

    async def _check_once(self) -> None:
        if self.protocol.state != "serving":
            return
        if not self._owner.still_named():
            self.protocol.drain(self.clock.monotonic(), f"{self.files.owner_lock} was removed: another broker may come")
            self.turn()
            return
        changed = await self.listeners.check()
        mine = self.record_file.holds(self.record)
        if not mine:
            self.log.warning("the record is gone or another's: writing it again")
        if changed or not mine:
            self._publish()
