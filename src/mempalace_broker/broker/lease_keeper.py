"""Carries out what the claim machines want: takes the palace across kernels, keeps it, and lets it go.

Everything here blocks, for microseconds on the host: a call must not go in before its flag is written and the names
were looked at.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import PalaceHeld, StateRootError
from ..lease.files import LeaseFolder, lock_id
from ..lease.machine.describe import describe, refusal
from ..lease.machine.lease import (
    ASK,
    ASKED,
    CLAIMING,
    CLEAR,
    CREATE,
    DONE,
    FENCED,
    FOREIGN,
    HOST,
    KILL,
    LIST,
    OWN,
    READ,
    SLEEP,
    Claimant,
    Owner,
    Rules,
)
from ..lease.machine.record import Writer
from ..system.process_ids import this_process

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable

    from ..lease.machine.lease import Do
    from ..lease.machine.record import Claim
    from ..system.clock import Clock, Deadline
    from ..system.lock import FileLock

LINGER_S = 0.25
_HINT = "free space in, or allow writing to, the palace directory"


class Held(NamedTuple):
    """A palace that is ours: the machine, the folder, who had it before, and what can be tidied once engine.lock is."""

    owner: Owner
    folder: LeaseFolder
    previous: Claim | None = None
    litter: tuple[int, ...] = ()


def writer_of(lock: FileLock, clock: Clock, *, direct: bool) -> Writer:
    """Who we are. `lock`: broker.lock, held."""
    me = this_process()
    return Writer(
        kind=FOREIGN if direct else HOST,
        host=socket.gethostname(),
        boot=me.boot,
        pidns=me.pidns,
        pid=me.pid,
        lock=lock_id(lock.fd),
        since=round(clock.wall(), 3),
        nonce=os.urandom(8).hex(),
    )


class Acquisition:
    """One attempt to get the palace. Blocks: for a millisecond on a host where nobody else is, for the settle time in a
    container, for a handover's drain where one is asked for.

    Args:
        folder: the claims. clock, deadline: how long a handover or a pulse may be waited for.
        floor: a generation that ours must exceed: what owners of before there were claims counted up to.
        told: gets a line of what is waited for, now and then.
    """

    def __init__(
        self,
        folder: LeaseFolder,
        clock: Clock,
        deadline: Deadline,
        *,
        floor: int = 0,
        rules: Rules | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._rules = rules or Rules()
        self._told = told
        self._machine = Claimant(folder.me.kind, self._rules, deadline.at, floor=floor)
        self._claims: dict[int, Claim] = {}

    def run(self, palace: str) -> Held:
        """Claim, wait, settle.

        Raises:
            PalaceHeld: somebody else has it, or may have it; says who, since when, and what to do.
            StateRootError: the folder can't be used.
        """
        try:
            self._folder.prepare()
            while self._machine.step != DONE:
                self._step()
        except OSError as exc:
            raise StateRootError(f"cannot use {self._folder.path}: {exc.strerror or exc}.", hint=_HINT) from exc
        finally:
            self._folder.take_back_asks()
        machine = self._machine
        if machine.verdict != OWN:
            self._folder.close()
            claim = self._claims.get(machine.holder.generation) if machine.holder else None
            what, hint = refusal(machine.verdict, claim, palace, self._rules.silence_s)
            raise PalaceHeld(what, hint=hint)
        owner = Owner(machine.mine, machine.kind, machine.sequence)
        previous = self._claims[max(self._claims)] if self._claims else None
        return Held(owner, self._folder, previous, tuple(sorted(machine.litter)))

    def _step(self) -> None:
        do = self._machine.action
        before = self._clock.monotonic()
        result = self._perform(do)
        self._machine = self._machine.advance(result, before, self._clock.monotonic())

    def _perform(self, do: Do) -> Any:
        folder = self._folder
        if do.verb == LIST:
            return folder.listing()
        if do.verb == READ:
            claim = folder.read(do.generation)
            self._claims[do.generation] = claim
            return folder.seen(claim)
        if do.verb == CREATE:
            return folder.create(do.generation)
        if do.verb == SLEEP:
            return self._sleep(do.until)
        if do.verb == ASK:
            if self._told is not None:
                self._told(f"generation {do.generation} is held from beyond a kernel boundary: asking it to hand over")
            return folder.ask(do.generation)
        return folder.write(do.state, do.sequence, busy=do.busy)

    def _sleep(self, until: float) -> None:
        """Until then; while we hold a claim, with heartbeats."""
        while (left := until - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, self._rules.beat_s))
            if self._machine.mine:
                self._machine, do = self._machine.beat()
                self._folder.write(CLAIMING, do.sequence, busy=False)


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
        held: Held,
        *,
        kill: Callable[[], bool],
        fenced: Callable[[str], None],
        asked: Callable[[], None],
        log: logging.Logger,
        resting: Callable[[], bool] = lambda: True,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._owner = held.owner
        self._folder = held.folder
        self._litter = held.litter
        self._kill = kill
        self._fenced = fenced
        self._asked = asked
        self._resting = resting
        self._flush = flush
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._was_asked = False
        self._log = log
        self._rules = Rules()
        self._unlocked = False
        self._born = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat until `release`."""
        self._loop = loop
        self._born = loop.time()
        self._timer = loop.call_later(self._rules.beat_s, self._beat_on, loop)

    def _beat_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None if self.over else loop.call_later(self._rules.beat_s, self._beat_on, loop)
        self.beat()
        if self._litter and not self.over:
            self.tidy(loop.time())

    @property
    def generation(self) -> int:
        """Ours."""
        return self._owner.generation

    @property
    def over(self) -> bool:
        """Whether the palace is no longer ours."""
        return self._owner.over

    def permit(self) -> bool:
        """Whether something may go into the engine now, its start and its orderly end included."""
        return self._do(self._owner.need()) == CLEAR

    def rest(self) -> None:
        """Nothing is in the engine now. On a foreign kernel the flag falls later, for it costs a flush there."""
        if not self._owner.busy or self._rest_timer is not None:
            return
        if self._owner.kind == FOREIGN and self._loop is not None:
            self._rest_timer = self._loop.call_later(LINGER_S, self._rest_late)
        else:
            self._do(self._owner.idle())

    def _rest_late(self) -> None:
        self._rest_timer = None
        if self._resting() and self._flushed():
            self._do(self._owner.idle())

    def _flushed(self) -> bool:
        """Whether all that was written is with the host; if not, the flag stays up, and others are in doubt."""
        try:
            self._flush()
        except OSError as exc:
            self._log.warning("claim: cannot flush the palace: %s", exc)
            return False
        return True

    def beat(self) -> None:
        """A second is over."""
        if self._do(self._owner.beat()) == ASKED and not self._was_asked:
            self._was_asked = True
            self._asked()

    def release(self) -> None:
        """The engine is gone and reaped: let go. A second call does nothing."""
        for timer in (self._timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        if self.over or self._owner.kind != FOREIGN or self._flushed():
            self._do(self._owner.leave())
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
        if not self._unlocked or now < self._born + self._rules.settle_s:
            return
        litter, self._litter = self._litter, ()
        try:
            for generation in litter:
                self._folder.remove(generation)
        except OSError as exc:
            self._log.warning("cannot remove an old claim: %s", exc)

    def facts(self) -> dict[str, Any]:
        """For status."""
        try:
            listing = self._folder.listing()
            claims = [self._folder.read(generation) for generation in listing.generations]
        except OSError as exc:
            return {"generation": self.generation, "state": f"unreadable: {exc.strerror or exc}"}
        return describe(listing, claims)

    def _do(self, machine: Owner) -> str:
        """Run one operation to its end; its verdict."""
        was_over = self._owner.over
        while machine.step:
            machine = machine.advance(self._perform(machine.action))
        self._owner = machine
        if machine.verdict == FENCED and not was_over:
            self._log.error("fenced: %s", machine.why)
            self._fenced(machine.why)
        return machine.verdict

    def _perform(self, do: Do) -> Any:
        try:
            if do.verb == LIST:
                return self._folder.listing()
            if do.verb == KILL:
                return self._kill()
            self._folder.write(do.state, do.sequence, busy=do.busy)
        except OSError as exc:
            self._log.error("claim: cannot %s: %s", do.verb, exc)
            return None
        return True
