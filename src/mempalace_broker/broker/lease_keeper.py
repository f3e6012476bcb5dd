"""Keeps the lease of a palace, and lets it go: carries out what the holder decides.

Everything here blocks, for microseconds on the host: a call must not go in before its flag is written and the names
were looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..lease.machine.describe import describe_leases
from ..lease.machine.hold import Holding
from ..lease.machine.lease import LeasePolicy, NodeKind, Verb

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable

    from ..lease.acquire import AcquiredLease
    from ..lease.machine.hold import LeaseHolder
    from ..lease.machine.lease import LeaseAction, Listing

LINGER_S = 0.25


class LeaseKeeper:
    """Keeps a palace that is ours. All methods are the loop's.

    Args:
        kill: SIGKILLs the engine and waits for its end; whether it is gone (or was never there).
        fenced: the palace is no longer ours; gets the reason. asked: the host wants it. Both are called once.
        resting: whether nothing is in the engine. flush: on a foreign kernel, writes out what that still keeps of the
            palace; raises OSError.
    """

    def __init__(
        self,
        lease: AcquiredLease,
        *,
        kill: Callable[[], bool],
        fenced: Callable[[str], None],
        asked: Callable[[], None],
        log: logging.Logger,
        resting: Callable[[], bool] = lambda: True,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._holder = lease.holder
        self._folder = lease.folder
        self._stale = lease.stale
        self._kill = kill
        self._fenced = fenced
        self._asked = asked
        self._resting = resting
        self._flush = flush
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._was_asked = False
        self._log = log
        self._policy = LeasePolicy()
        self._unlocked = False
        self._born = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat until `release`."""
        self._loop = loop
        self._born = loop.time()
        self._timer = loop.call_later(self._policy.heartbeat_s, self._beat_on, loop)

    def _beat_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None if self.over else loop.call_later(self._policy.heartbeat_s, self._beat_on, loop)
        self.beat()
        if self._stale and not self.over:
            self.tidy(loop.time())

    @property
    def epoch(self) -> int:
        """Ours."""
        return self._holder.epoch

    @property
    def over(self) -> bool:
        """Whether the palace is no longer ours."""
        return self._holder.over

    def permit(self) -> bool:
        """Whether something may go into the engine now, its start and its orderly end included."""
        return self._do(self._holder.mark_busy()) is Holding.CLEAR

    def rest(self) -> None:
        """Nothing is in the engine now. On a foreign kernel the flag falls later, for it costs a flush there."""
        if not self._holder.busy or self._rest_timer is not None:
            return
        if self._holder.kind is NodeKind.FOREIGN and self._loop is not None:
            self._rest_timer = self._loop.call_later(LINGER_S, self._rest_late)
        else:
            self._do(self._holder.mark_idle())

    def _rest_late(self) -> None:
        self._rest_timer = None
        if self._resting() and self._flushed():
            self._do(self._holder.mark_idle())

    def _flushed(self) -> bool:
        """Whether all that was written is with the host; if not, the flag stays up, and others are in doubt."""
        try:
            self._flush()
        except OSError as exc:
            self._log.warning("lease: cannot flush the palace: %s", exc)
            return False
        return True

    def beat(self) -> None:
        """A second is over."""
        if self._do(self._holder.renew()) is Holding.HANDOVER and not self._was_asked:
            self._was_asked = True
            self._asked()

    def release(self) -> None:
        """The engine is gone and reaped: let go. A second call does nothing."""
        for timer in (self._timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        if self.over or self._holder.kind is not NodeKind.FOREIGN or self._flushed():
            self._do(self._holder.release())
        self._folder.close()

    def unlocked(self) -> None:
        """We have had engine.lock: the engine of a dead broker of this kernel is gone, too."""
        self._unlocked = True

    def tidy(self, now: float) -> None:
        """Remove what nobody needs any more, once everybody sees our own name.

        Earlier one who looks at the folder might find neither the old name nor ours, and create an old number again:
        the model checker found two writers there.

        Args:
            now: the loop's time.
        """
        if not self._unlocked or now < self._born + self._policy.settle_s:
            return
        stale, self._stale = self._stale, ()
        try:
            for epoch in stale:
                self._folder.remove(epoch)
        except OSError as exc:
            self._log.warning("cannot remove a stale lease: %s", exc)

    def facts(self) -> dict[str, Any]:
        """For status."""
        try:
            return describe_leases(*self._folder.read_all())
        except OSError as exc:
            return {"epoch": self.epoch, "state": f"unreadable: {exc.strerror or exc}"}

    def _do(self, machine: LeaseHolder) -> Holding | None:
        """Run one operation to its end; its outcome."""
        was_over = self._holder.over
        while machine.step is not Verb.DONE:
            machine = machine.advance(self._carry_out(machine.action))
        self._holder = machine
        if machine.outcome is Holding.FENCED and not was_over:
            self._log.error("fenced: %s", machine.reason)
            self._fenced(machine.reason)
        return machine.outcome

    def _carry_out(self, action: LeaseAction) -> Listing | bool | None:
        try:
            if action.verb is Verb.LIST:
                return self._folder.listing()
            if action.verb is Verb.KILL:
                return self._kill()
            self._folder.write(action.state, action.sequence, busy=action.busy)
        except OSError as exc:
            self._log.error("lease: cannot %s: %s", action.verb, exc)
            return None
        return True
