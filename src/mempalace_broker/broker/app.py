"""One broker from start to end: listen, serve, leave. All decisions are the protocol's."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import EXIT_OK, BrokerError, StateRootError, file_hint
from ..lease.files import flush_palace
from ..locality.mounts import folders_table
from ..protocol.jsonrpc import result_line
from ..system.clock import Clock
from ..system.find_palace import leads_elsewhere
from ..system.kernel import view_of
from .backups import Backups
from .engine_host import EngineHost
from .guest_paths import GuestPaths
from .lease_keeper import LeaseKeeper
from .listeners import Listeners
from .machine import effects as fx
from .machine.answers import Answers
from .machine.greeting import Host
from .machine.lifecycle import BrokerState, Lifecycle
from .machine.protocol import BrokerProtocol
from .machine.scheduler import Limits
from .machine.supervisor import Policy
from .observer import Observer
from .publisher import Publisher, new_record
from .runner import ProtocolRunner
from .snapshot import Snapshot
from .tasks import Tasks, wait_until
from .warnings import Warnings

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable, Mapping

    from ..lease.acquire import AcquiredLease
    from ..protocol.palace import PalaceIdentity
    from ..settings import BrokerSettings
    from ..system.lock import FileLock
    from ..system.paths import StateFiles

SELF_CHECK_S = 2.0
FLUSH_S = 1.0
_ANSWERS_LIMIT = 8 << 20


class App:
    """One broker. `owner` is broker.lock, held; the caller releases it after `run` and `let_go`.

    Args:
        degraded: what is not as it should be from the start, each with its hint.
        keeps: whether there is a private folder to keep answers and exit reason in.
    """

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
        degraded: Iterable[tuple[str, str]] = (),
        keeps: bool = True,
    ) -> None:
        epoch = held.holder.epoch
        self._identity = identity
        self._files = files
        self._log = log
        self._clock = clock = Clock()
        self._owner = owner
        self._leaving = False
        self._quit: asyncio.Future[str] | None = None
        self._warnings = Warnings(log, degraded)
        self._tasks = Tasks(self._task_failed)
        record = new_record(identity, files, epoch=epoch, started_by=started_by, at=self._clock.wall())
        lease = {"epoch": epoch, "nonce": held.folder.me.nonce}
        facts = {"record": record.record, "broker": __version__, "pid": os.getpid(), "lease": lease}
        now = self._clock.monotonic()
        answers = Answers()
        limits = Limits(
            wait_s=settings.call_s,
            run_s=settings.call_s,
            init_s=settings.init_s,
            park_s=settings.park_s,
            session_calls=settings.session_calls,
        )
        self._protocol = BrokerProtocol(
            Host(identity, limits, facts, view_of(identity)),
            policy=Policy(init_s=settings.init_s),
            rng=random.random,
            answers=answers,
            label=f"raw{record.record[:8]}x",
            lifecycle=Lifecycle(idle_s=settings.idle_s, drain_s=settings.drain_s, now=now),
            since=since,
        )
        self._dispatcher = self._protocol.dispatcher
        self._observer = Observer(self._protocol, clock, log)
        self._runner = ProtocolRunner(
            self._protocol,
            carry_out=self._carry_out,
            after_turn=lambda: self._lease.rest(),  # noqa: PLW0108 - it is made below
            stall_s=settings.client_stall_s,
            clock=self._clock,
            log=log,
            warnings=self._warnings,
        )
        self._engine = EngineHost(
            dispatcher=self._dispatcher,
            identity=identity,
            files=files,
            settings=settings,
            env=env,
            clock=self._clock,
            log=log,
            tasks=Tasks(self._task_failed),  # its own: a start that was begun is not cancelled
            turn=self._runner.turn,
            covers=since < epoch,
        )
        self._lease = LeaseKeeper(
            held,
            kill=self._engine.kill_now,
            fenced=lambda why: self._runner.drain(f"the palace is no longer ours: {why}", at_once=True),
            asked=lambda: self._runner.drain("the palace's own machine asks for it"),
            log=log,
            resting=self._is_resting,
            flush=lambda: flush_palace(identity.path, identity.graph),
            elects=owner.still_named,
            replacing=lambda: self._dispatcher.lent,
            warn=self._warnings.add,
        )
        self._guest_paths = GuestPaths(settings.guest_folders)
        self._publisher = Publisher(record, files, log, keeps=keeps)
        self._backups = Backups(identity, files, settings, env, clock, log)
        self._listeners = Listeners(
            self._runner,
            identity=identity,
            files=files,
            settings=settings,
            env=env,
            clock=clock,
            tasks=self._tasks,
            status=lambda: self._snapshot.take(self._clock.monotonic()),
        )
        self.hand_over = self._listeners.http.hand_over  # after the loop: see there
        self._snapshot = Snapshot(
            identity=identity,
            files=files,
            settings=settings,
            protocol=self._protocol,
            engine=self._engine,
            lease=self._lease,
            listeners=self._listeners,
            observer=self._observer,
            backups=self._backups,
            record=record,
            warnings=self._warnings,
            started=now,
        )
        self._load_answers(answers)

    def _load_answers(self, answers: Answers) -> None:
        if not (version := self._engine.locate()):
            return
        answers.expect(version)
        try:
            answers.load(self._files.answers.read(_ANSWERS_LIMIT), version)
        except OSError as exc:
            self._log.warning("cannot read %s: %s", self._files.answers.path, exc)
        self._publisher.record.engine_version = version

    # -- start, serve, leave

    async def run(self, on_ready: Callable[[str], None]) -> int:
        """Serve until told to leave, or idle; return the exit code.

        Raises:
            StateRootError: socket or record can't be placed.
        """
        loop = asyncio.get_running_loop()
        self._quit = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled, number)
        loop.set_exception_handler(self._callback_failed)
        await self._listeners.open()
        try:
            await self._publisher.start(self._listeners.endpoints, self._listeners.tcp.token)
        except OSError as exc:
            what = f"cannot write {self._files.record}: {exc.strerror or exc}."
            raise StateRootError(what, hint=file_hint(exc)) from exc
        record = self._publisher.record
        on_ready(record.endpoints[0])
        self._log.info("serving %s on %s, record %s", self._identity.path, self._files.socket, record.record)
        self._tasks.start("self-check", self._check_self())
        self._tasks.start("backups", self._backups.run())
        self._lease.start()
        self._dispatcher.start(self._clock.monotonic())
        self._runner.turn()
        await self._leave(await self._quit)
        return EXIT_OK

    async def _retire(self) -> None:
        await self._publisher.withdraw()
        self._listeners.close()

    async def _leave(self, reason: str) -> None:
        self._leaving = True
        self._tasks.cancel_all()
        await self._retire()
        await self._backups.end()
        conns = self._runner.conns
        for conn in list(conns.values()):
            conn.close()
        await wait_until(lambda: not conns, FLUSH_S, self._clock)
        for conn in list(conns.values()):
            conn.drop("the broker leaves")
        self._listeners.http.hang_up()
        await self._engine.end(self._lease)
        if self._engine.palace_is_free:
            await self._lease.leave()
        await self._publisher.note_exit(reason)
        self._log.info("left: %s", reason)

    def let_go(self) -> None:
        """Release the lease after the loop, unless the palace is in use: then others must find that out."""
        if self._engine.palace_is_free:
            self._lease.release()

    def _signalled(self, number: int) -> None:
        self._runner.drain(signal.Signals(number).name, at_once=self._protocol.state != BrokerState.SERVING)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        self._warnings.callback_failed(str(context.get("message")), context.get("exception"))

    def _task_failed(self, name: str, exc: BaseException) -> None:
        self._log.error("task %s failed: %r", name, exc, exc_info=exc)

    # -- effects

    def _carry_out(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.ToEngine):
            if self._engine.process is not None:
                self._engine.process.send(effect.data)
        elif isinstance(effect, fx.ConfirmLease):
            self._lease.confirm(self._lease_answered)
        elif isinstance(effect, fx.ControlEngine):
            self._engine.control(effect.action, self._lease)
        elif isinstance(effect, fx.Close):
            self._runner.close(effect.conn, effect.reason)
        elif isinstance(effect, fx.Log):
            self._observer.log(effect)
        elif isinstance(effect, fx.CallFailed):
            self._observer.call_failed(effect)
        elif isinstance(effect, fx.Retire):
            self._listeners.http.close(hand_over=effect.again)
            self._tasks.start("retire", self._retire())
        elif isinstance(effect, fx.Quit):
            if self._quit is not None and not self._quit.done():
                self._quit.set_result(effect.reason)
        else:
            self._answer_or_save(effect)

    def _answer_or_save(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.SendStatus):
            status = self._snapshot.take(self._clock.monotonic(), brief=effect.brief)
            self._runner.send(effect.conn, result_line(effect.id, status))
        elif isinstance(effect, fx.OpenPage):
            self._runner.send(effect.conn, self._listeners.http.open_page(effect.id))
        elif isinstance(effect, fx.SendWelcome):
            if effect.with_mounts:
                effect.welcome["files"]["mounts"] = folders_table()
            if effect.guest and "files" in effect.welcome:
                effect.welcome["files"]["proof"] = self._runner.proof_nonce(effect.conn)
            effect.welcome["lease"] = {**effect.welcome["lease"], "sequence": self._lease.sequence}
            self._runner.send(effect.conn, result_line(effect.id, effect.welcome))
        elif isinstance(effect, fx.CheckPaths):
            self._tasks.start("check-paths", self._check_paths(effect))
        elif isinstance(effect, fx.SaveAnswers):
            self._tasks.start("save-answers", self._save_answers(effect.data))
        elif isinstance(effect, fx.PublishTools):
            self._tasks.start("publish-tools", self._listeners.http.check())

    async def _check_paths(self, effect: fx.CheckPaths) -> None:
        if (conn := self._runner.conns.get(effect.conn)) is None:
            return  # the guest is gone, and its call withdrawn
        real, refusal = await asyncio.to_thread(self._guest_paths.look_up, conn.peer, conn.proof, effect.paths)
        self._protocol.guest_calls.checked(effect.n, real, refusal)
        self._runner.turn()

    async def _save_answers(self, data: bytes) -> None:
        self._publisher.record.engine_version = self._protocol.answers.version
        try:
            await self._publisher.save_answers(data)
            await self._publish()
        except OSError as exc:
            self._warnings.add(f"cannot write {self._files.answers.path}, or the record: {exc}", file_hint(exc))

    async def _publish(self) -> None:
        await self._publisher.publish(self._listeners.endpoints, self._listeners.tcp.token)

    # -- the lease

    def _lease_answered(self, ours: bool) -> None:
        if ours:
            self._dispatcher.lease_confirmed(self._clock.monotonic())
        else:
            self._dispatcher.lease_lost()
        self._runner.turn()

    def _is_resting(self) -> bool:
        """Whether nothing is in the engine, or may be soon; once we leave, the lease is released instead."""
        return self._dispatcher.resting and not self._engine.starting and not self._leaving

    # -- the self-check

    async def _check_self(self) -> None:
        """Socket name and record may vanish under us (cleaners, restores): while the lock is ours, put them back."""
        while self._protocol.state == BrokerState.SERVING:
            await asyncio.sleep(SELF_CHECK_S)
            try:
                await self._check_once()
            except (OSError, BrokerError) as exc:
                self._warnings.add(f"the self-check failed: {exc}", file_hint(exc))

    async def _check_once(self) -> None:
        if self._protocol.state != BrokerState.SERVING or self._dispatcher.lent:
            return  # a command may replace the palace's folder: the next start of an engine finds that out
        if not self._owner.still_named():
            self._runner.drain(f"{self._files.owner_lock} was removed: another broker may come")
            return
        if leads_elsewhere(self._identity):
            self._runner.drain(f"{self._identity.name} leads elsewhere now: another broker may come", at_once=True)
            return
        changed = await self._listeners.check()
        published = await self._publisher.is_published()
        if not published:
            self._log.warning("the record is gone or another's: writing it again")
        if changed or not published:
            await self._publish()
