"""Gets the lease of a palace: carries out what the acquirer decides. Blocks."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from ..errors import PalaceHeld, StateRootError, file_hint
from ..system.kernel import file_id
from ..system.process_ids import this_process
from .files import MARGIN, LeaseFolder
from .machine.acquire import Acquired, LeaseAcquirer
from .machine.describe import describe_refusal
from .machine.hold import LeaseHolder
from .machine.lease import MAX_EPOCH, LeasePolicy, LeaseState, NodeKind, Verb
from .machine.record import HolderId

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..system.clock import Clock, Deadline
    from ..system.lock import FileLock
    from .machine.lease import LeaseAction, Listing, ObservedLease
    from .machine.record import LeaseRecord


class AcquiredLease(NamedTuple):
    """A palace that is ours: the machine, the folder, whose it was before, and the epochs below ours to remove."""

    holder: LeaseHolder
    folder: LeaseFolder
    previous: LeaseRecord | None = None
    stale: tuple[int, ...] = ()


def own_holder_id(lock: FileLock, clock: Clock, *, direct: bool) -> HolderId:
    """Who this broker is. `lock`: broker.lock, held."""
    me = this_process()
    return HolderId(
        kind=NodeKind.FOREIGN if direct else NodeKind.HOST,
        host=socket.gethostname(),
        boot=me.boot,
        pidns=me.pidns,
        pid=me.pid,
        lock=file_id(lock.fd),
        palace=file_id(os.path.dirname(lock.path)),
        since=round(clock.wall(), 3),
        nonce=os.urandom(8).hex(),
    )


class LeaseAcquisition:
    """One attempt to get the palace. Blocks: for a millisecond on a host where no other broker is, for the settle time
    in a container, and for a handover's drain where it asks for one.

    Args:
        folder: the leases. clock, deadline: how long to wait for a handover or a heartbeat.
        minimum_epoch: ours must exceed it: how far owners counted before there were leases.
        log: gets a line about what it waits for.
    """

    def __init__(
        self,
        folder: LeaseFolder,
        clock: Clock,
        deadline: Deadline,
        *,
        minimum_epoch: int = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._policy = LeasePolicy()
        self._log = log
        if not 0 <= minimum_epoch <= MAX_EPOCH - MARGIN:
            minimum_epoch = 0  # the note in broker.lock is not what a broker wrote
        self._machine = LeaseAcquirer(folder.me.kind, self._policy, deadline.at, minimum_epoch)
        self._leases: dict[int, LeaseRecord] = {}
        self._listed_at = 0.0

    def run(self, palace: str) -> AcquiredLease:
        """Read, create, settle.

        Raises:
            PalaceHeld: another broker has it, or may have it; says which, since when, and what to do.
            StateRootError: the folder can't be used.
        """
        try:
            self._folder.prepare()
            while self._machine.step is not Verb.DONE:
                self._step()
        except OSError as exc:
            raise StateRootError(
                f"cannot use {self._folder.path}: {exc.strerror or exc}.", hint=file_hint(exc)
            ) from exc
        finally:
            self._folder.withdraw_requests()
        machine = self._machine
        assert machine.outcome is not None
        if machine.outcome is not Acquired.OURS:
            self._folder.close()
            blocker = self._leases.get(machine.blocker.epoch) if machine.blocker else None
            what, hint = describe_refusal(machine.outcome, blocker, palace, self._policy.silence_s)
            raise PalaceHeld(what, hint=hint)
        since = self._listed_at  # nothing was above us then
        holder = LeaseHolder(machine.epoch, machine.kind, machine.sequence, written_at=since, looked_at=since)
        previous = self._leases[max(self._leases)] if self._leases else None
        return AcquiredLease(holder, self._folder, previous, tuple(sorted(machine.stale)))

    def _step(self) -> None:
        action = self._machine.action
        before = self._clock.monotonic()
        result = self._carry_out(action)
        self._machine = self._machine.advance(result, before, self._clock.monotonic())

    def _carry_out(self, action: LeaseAction) -> Listing | ObservedLease | bool | None:
        folder = self._folder
        if action.verb is Verb.LIST:
            self._listed_at = self._clock.elapsed()
            return folder.listing()
        if action.verb is Verb.READ:
            lease = self._leases[action.epoch] = folder.read(action.epoch)
            return folder.observe(lease)
        if action.verb is Verb.CREATE:
            return folder.create(action.epoch)
        if action.verb is Verb.SLEEP:
            self._sleep(action.until)
        elif action.verb is Verb.REQUEST_HANDOVER:
            if self._log is not None:
                self._log(f"epoch {action.epoch} is held from beyond a kernel boundary: asking its broker to hand over")
            folder.request_handover(action.epoch)
        else:
            folder.write(action.state, action.sequence, busy=action.busy)
        return None

    def _sleep(self, until: float) -> None:
        """Sleep until then; while we have an epoch, with heartbeats."""
        while (left := until - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, self._policy.heartbeat_s))
            if self._machine.epoch:
                self._machine, action = self._machine.renew()
                self._folder.write(LeaseState.ACQUIRING, action.sequence, busy=False)
