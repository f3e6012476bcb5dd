"""Keeps a palace that is ours across kernels, and lets it go.

The operations of the lease machine run strictly one after another. On the host each costs microseconds and runs at
once. On a foreign kernel each needs a sync, so there they run in a worker thread; and wherever an engine has to be
killed, which may take seconds, the worker does it. What came of an operation is reported on the loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..lease.machine.describe import describe_leases
from ..lease.machine.hold import Holding, LeaseHolder
from ..lease.machine.lease import LeasePolicy, Listing, NodeKind, Verb
from ..system.clock import Clock
from .admission import SHORTAGES
from .lease_operation import LocalShortage, Operation

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from ..lease.acquire import AcquiredLease
    from ..lease.machine.lease import LeaseAction

LINGER_S = 0.25
LOOK_AGAIN_S = 0.1
_MOST_TOLD = 16  # leases in `status`, read on the loop: 0.15 ms each on a busy machine's local disk
_CLOCK = Clock()
_CONTRADICTED = (
    "somebody who can write the palace made a lease of a higher epoch, or says that ours is gone: ignored",
    "find out who else has the palace's folder mounted: `mempalace-broker doctor`",
)


class LeaseKeeper:
    """The lease of one broker. Methods belong to the loop, unless they say otherwise.

    Args:
        kill: SIGKILLs the engine and waits for its end; whether it is gone, or never was. Runs in the worker.
        fenced: called once when the palace is no longer ours, with the reason; the engine is dead by then.
        asked: called once when the host wants the palace.
        resting: whether nothing is in the engine, or about to be sent to it.
        flush: writes out what a foreign kernel still keeps of the palace; raises OSError. Runs in the worker.
        replacing: whether a command may be replacing the palace's whole folder at the moment.
        elects: whether broker.lock, which we hold, still elects the broker of this kernel. warn: takes (what, hint).
        elapsed: a clock that counts the machine's sleep.
    """

    def __init__(
        self,
        lease: AcquiredLease,
        *,
        kill: Callable[[], bool],
        fenced: Callable[[str], None],
        asked: Callable[[], None],
        log: logging.Logger,
        warn: Callable[[str, str], None],
        resting: Callable[[], bool] = lambda: True,
        flush: Callable[[], None] = lambda: None,
        elects: Callable[[], bool] = lambda: True,
        replacing: Callable[[], bool] = lambda: False,
        elapsed: Callable[[], float] = _CLOCK.elapsed,
    ) -> None:
        self._holder = lease.holder
        self._folder = lease.folder
        self._stale = lease.stale
        self._kill = kill
        self._fenced = fenced
        self._asked = asked
        self._resting = resting
        self._flush = flush
        self._elects = elects
        self._replacing = replacing
        self._warn = warn
        self._elapsed = elapsed
        self._log = log
        self._policy = LeasePolicy()
        self._foreign = lease.holder.kind is NodeKind.FOREIGN
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lease")
        self._in_worker = 0  # operations that the worker has or will get
        self._beating = False
        self._was_fenced = self._was_asked = self._released = False
        self._engine_lock_seen = False
        self._seen = Listing()
        self._suspects: frozenset[int] = frozenset()
        self._born = 0.0
        self._beat_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None

    @property
    def epoch(self) -> int:
        """Our epoch."""
        return self._holder.epoch

    @property
    def sequence(self) -> int:
        """How often our lease was written."""
        return self._holder.sequence

    @property
    def over(self) -> bool:
        """Whether the palace is no longer ours."""
        return self._holder.over

    # -- what the broker asks for

    def start(self) -> None:
        """Write heartbeats until `leave`."""
        loop = asyncio.get_running_loop()
        self._born = loop.time()
        self._beat_timer = loop.call_later(self._policy.heartbeat_s, self._beat_on)

    def confirm(self, done: Callable[[bool], None], when_clear: Callable[[], None] | None = None) -> None:
        """Find out whether something may go to the engine now, its start and its orderly end included.

        Args:
            done: gets the answer; before this returns on the host, later on a foreign kernel. A palace that was
                confirmed stays marked as busy until some time after `rest`.
                Where nobody can look for want of descriptors, it comes once somebody can.
            when_clear: starts the engine. It runs in the thread of the lease, so that no engine can start after the
                lease was found lost and the engine of that time was killed.
        """

        def told(outcome: Holding | None) -> None:
            if outcome is Holding.UNSURE:
                asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._confirm_again, done, when_clear)
            else:
                done(outcome is Holding.CLEAR)

        if when_clear is not None:
            self._submit(Operation(LeaseHolder.mark_busy, told, when_clear=when_clear))
        elif not self._in_worker and self._holder.is_certain(self._elapsed()):
            done(True)
        else:
            self._submit(Operation(LeaseHolder.mark_busy, told))

    def _confirm_again(self, done: Callable[[bool], None], when_clear: Callable[[], None] | None) -> None:
        if self._released:
            done(False)
        else:
            self.confirm(done, when_clear)

    def rest(self) -> None:
        """Let the busy flag fall some time after nothing was in the engine any more: the next call often comes at once,
        and on a foreign kernel it costs a flush. Call it after every event.
        """
        if self._rest_timer is None and self._holder.busy and self._resting():
            self._rest_timer = asyncio.get_running_loop().call_later(LINGER_S, self._rest_late)

    def beat(self) -> None:
        """Look for higher epochs and for requests to hand over, then write a heartbeat."""
        self._beating = True
        self._submit(Operation(LeaseHolder.renew, self._beaten))

    def engine_lock_taken(self) -> None:
        """We have had engine.lock: the engine of a dead broker of this kernel is gone, too."""
        self._engine_lock_seen = True

    async def leave(self) -> None:
        """Release the lease after all earlier operations; the engine is gone and reaped."""
        for timer in (self._beat_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        if not self._released:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._release)

    def release(self) -> None:
        """Do the same where no loop runs any more. Blocks; a second call does nothing."""
        self._worker.shutdown()
        if not self._released:
            self._release()

    def facts(self) -> dict[str, Any]:
        """All leases, for status."""
        try:
            listing = self._folder.listing()
            believed = [epoch for epoch in listing.epochs if self.over or epoch <= self.epoch]
            return describe_leases(listing, [self._folder.read(epoch) for epoch in believed[-_MOST_TOLD:]])
        except OSError as exc:
            return {"epoch": self.epoch, "state": f"unreadable: {exc.strerror or exc}"}

    def tidy(self, now: float) -> None:
        """Remove the stale leases, once everybody sees ours. Runs in the worker.

        Earlier, a reader of the folder might find neither the old name nor ours, and create an old number again: the
        model checker found two writers there. `now` is the loop's time.
        """
        if not self._engine_lock_seen or now < self._born + self._policy.settle_s:
            return
        stale, self._stale = self._stale, ()
        try:
            self._folder.remove(stale)
        except OSError as exc:
            self._log.warning("cannot remove a stale lease: %s", exc)

    # -- what comes of it

    def _beat_on(self) -> None:
        loop = asyncio.get_running_loop()
        self._beat_timer = None if self.over else loop.call_later(self._policy.heartbeat_s, self._beat_on)
        if not self._beating:  # else the last one still waits for a slow disk
            self.beat()

    def _beaten(self, outcome: Holding | None) -> None:
        self._beating = False
        if outcome is Holding.HANDOVER and not self._was_asked:
            self._was_asked = True
            self._asked()
        if self._stale and not self.over:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(self._worker, self.tidy, loop.time())
        if outcome is Holding.CLEAR and self._is_contradicted():
            self._warn(*_CONTRADICTED)
            asyncio.get_running_loop().run_in_executor(self._worker, self.weed)

    def _is_contradicted(self) -> bool:
        """Whether the last look, which was clear, found what says that we don't own the palace."""
        return self._seen.top > self.epoch or any(epoch == self.epoch for epoch, _ in self._seen.gone)

    def weed(self) -> None:
        """Answer what contradicts our lease, and remove what no broker made. Runs in the worker, after a clear look.

        The maker of the highest may not see our heartbeats: a request, which is a new name, tells it that we live.
        What is no candidate's record goes after a second clear look, which proves that nobody owned at the first.
        """
        seen = self._seen  # the loop may look again meanwhile
        try:
            if seen.top > self.epoch:
                self._folder.answer(seen.top)
            found = self._folder.made_up(seen)
            self._folder.weed(found & self._suspects, seen)
            self._suspects = found - self._suspects
        except OSError as exc:
            self._log.warning("cannot answer or remove a lease above ours: %s", exc)

    def _rest_late(self) -> None:
        if self._resting():
            self._submit(Operation(LeaseHolder.mark_idle, self._rested, prepare=self._flushed))
        else:
            self._rest_timer = None

    def _rested(self, outcome: Holding | None) -> None:  # noqa: ARG002 - as every `done`
        self._rest_timer = None

    # -- one operation after another

    def _submit(self, operation: Operation) -> None:
        """Run an operation after all earlier ones; on the host at once, unless the worker is at work."""
        if self._foreign or self._in_worker:
            self._run_in_worker(operation, self._run)
            return
        self._begin(operation)
        self._advance(may_kill=False)
        if self._holder.step is not Verb.DONE:
            self._run_in_worker(operation, self._end)
        else:
            self._report(operation, self._end(operation))

    def _run_in_worker(self, operation: Operation, run: Callable[[Operation], LeaseHolder]) -> None:
        self._in_worker += 1
        future = asyncio.get_running_loop().run_in_executor(self._worker, run, operation)
        future.add_done_callback(lambda ended: self._back(operation, ended))

    def _back(self, operation: Operation, ended: asyncio.Future[LeaseHolder]) -> None:
        self._in_worker -= 1
        self._report(operation, ended.result())

    def _report(self, operation: Operation, machine: LeaseHolder) -> None:
        if machine.outcome is Holding.FENCED and not self._was_fenced:
            self._was_fenced = True
            self._log.error("fenced: %s", machine.reason)
            self._fenced(machine.reason)
        operation.done(machine.outcome)

    def _run(self, operation: Operation) -> LeaseHolder:
        self._begin(operation)
        return self._end(operation)

    def _begin(self, operation: Operation) -> None:
        if operation.prepare():
            self._holder = operation.begin(self._holder)

    def _end(self, operation: Operation) -> LeaseHolder:
        self._advance(may_kill=True)
        if self._holder.outcome is Holding.CLEAR:
            operation.when_clear()
        return self._holder

    def _advance(self, *, may_kill: bool) -> None:
        while self._holder.step is not Verb.DONE and (may_kill or self._holder.step is not Verb.KILL):
            try:
                before = self._elapsed()
                result = self._carry_out(self._holder.action)
                self._holder = self._holder.advance(result, before, self._elapsed())
            except LocalShortage as exc:
                self._log.warning("lease: cannot look now: %s", exc)
                self._holder = self._holder.could_not_look()

    def _carry_out(self, action: LeaseAction) -> Listing | bool | None:
        try:
            if action.verb is Verb.LIST:
                self._seen = self._folder.listing()
                if self._replacing() and self.epoch not in self._seen.epochs:
                    raise LocalShortage("a command has replaced the palace's folder")
                return self._seen
            if action.verb is Verb.KILL:
                return self._kill()
            if action.verb is Verb.CREATE:
                self._log.warning("our lease, epoch %s, was removed: putting it back", action.epoch)
                return self._elects() and self._folder.create_again(action.epoch)
            self._folder.write(action.state, action.sequence, busy=action.busy)
        except OSError as exc:
            if action.verb is Verb.LIST and (exc.errno in SHORTAGES or self._replacing()):
                raise LocalShortage(exc.strerror or str(exc)) from exc
            self._log.error("lease: cannot %s: %s", action.verb, exc)
            return None
        return True

    def _flushed(self) -> bool:
        """Whether all that was written is with the host; if not, the busy flag stays up, and others are in doubt."""
        try:
            if self._foreign:
                self._flush()
        except OSError as exc:
            self._log.warning("lease: cannot flush the palace: %s", exc)
            return False
        return True

    def _release(self) -> None:
        self._released = True
        if self.over or self._flushed():
            self._holder = self._holder.release()
            self._advance(may_kill=True)
        self._folder.close()
