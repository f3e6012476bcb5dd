"""How a broker keeps the lease of a palace, as a pure machine. The theory stands in lease.py."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from .lease import LeaseAction, LeasePolicy, LeaseState, Listing, NodeKind, Verb


class Holding(StrEnum):
    """What an operation found out."""

    CLEAR = "clear"
    UNSURE = "unsure"  # nobody could look, for want of descriptors or memory: ask again
    FENCED = "fenced"  # the palace is no longer ours
    HANDOVER = "handover"  # the host wants it: drain, then release


class Operation(StrEnum):
    """What the holder is about."""

    MARK_BUSY = "mark busy"
    MARK_IDLE = "mark idle"
    RENEW = "renew"
    RELEASE = "release"
    FENCE = "fence"


class LeaseHolder(NamedTuple):
    """A broker that owns the palace. An operation (`mark_busy`, `renew`, `mark_idle`, `release`) sets `step`; carry out
    `action` and `advance` until `step` is DONE; then `outcome` is the result.

    Attributes:
        over: released; nothing may be done any more. reason: why it was fenced, for people.
        written_at: a moment before the last write. looked_at: before the last look that found our name.
        paused: there was a pause between two writes in which another node may have come to own the palace, and no
            look since then that found nothing above us.
    """

    epoch: int
    kind: NodeKind
    sequence: int
    busy: bool = False
    over: bool = False
    step: Verb = Verb.DONE
    operation: Operation | None = None
    outcome: Holding | None = None
    reason: str = ""
    policy: LeasePolicy = LeasePolicy()
    written_at: float = float("-inf")
    looked_at: float = float("-inf")
    paused: bool = False

    @property
    def action(self) -> LeaseAction:
        """What to do next."""
        if self.step is not Verb.WRITE:
            return LeaseAction(self.step, self.epoch)
        released = self.operation in (Operation.RELEASE, Operation.FENCE)
        stays_busy = self.busy and self.operation is not Operation.MARK_IDLE
        busy = not released and (self.operation is Operation.MARK_BUSY or stays_busy)
        state = LeaseState.RELEASED if released else LeaseState.ACTIVE
        return LeaseAction(Verb.WRITE, self.epoch, state, self.sequence + 1, busy)

    def is_certain(self, now: float) -> bool:
        """Whether something may go into the engine without a look: a host is marked as busy, and its last look and its
        last write are recent, see lease.py.
        """
        return (
            self.busy
            and self.kind is NodeKind.HOST
            and self.step is Verb.DONE
            and not (self.over or self.paused)
            and now - self.written_at < self.policy.steady_s
            and now - self.looked_at < self.policy.repair_s
        )

    def mark_busy(self) -> LeaseHolder:
        """Before anything goes into the engine (its start included). CLEAR: it may; FENCED: it must not."""
        if self.over:
            return self._replace(outcome=Holding.FENCED)
        return self._begin(Verb.LIST if self.busy else Verb.WRITE, Operation.MARK_BUSY)

    def renew(self) -> LeaseHolder:
        """Once a second. CLEAR, HANDOVER or FENCED."""
        return self if self.over else self._begin(Verb.LIST, Operation.RENEW)

    def mark_idle(self) -> LeaseHolder:
        """When nothing is in the engine any more."""
        return self._begin(Verb.WRITE, Operation.MARK_IDLE) if self.busy and not self.over else self

    def release(self) -> LeaseHolder:
        """When the engine is gone and reaped."""
        return self if self.over else self._begin(Verb.WRITE, Operation.RELEASE)

    def _begin(self, step: Verb, operation: Operation) -> LeaseHolder:
        return self._replace(step=step, operation=operation, outcome=None)

    def advance(self, result: Listing | bool | None, before: float, after: float) -> LeaseHolder:
        """The machine after its action.

        Args:
            result: LIST: the listing, None if it failed; WRITE, KILL, CREATE: success.
            before, after: the time just before and just after the action, by a clock that counts the machine's sleep.
        """
        if self.step is Verb.LIST:
            return self._listed(result if isinstance(result, Listing) else None, before, after)
        if self.step is Verb.CREATE:
            return self._recreated(bool(result), after)
        if self.step is Verb.KILL:
            if result:
                return self._replace(step=Verb.WRITE)
            # the engine may still run: don't say that the lease is released
            return self._replace(step=Verb.DONE, over=True, outcome=Holding.FENCED)
        return self._wrote(bool(result), before, after)

    def _listed(self, listing: Listing | None, before: float, after: float) -> LeaseHolder:
        ours = self.epoch
        steady = not self.paused and after - self.written_at < self.policy.steady_s
        if self.kind is NodeKind.HOST and steady:
            if listing is None or ours not in listing.epochs:
                return self._replace(step=Verb.CREATE)
            return self._clear(listing, before)  # nobody can own what is above
        if listing is None:
            return self.fence("the folder of leases could not be read")
        if listing.top > ours:
            return self.fence(f"epoch {listing.top} was acquired after ours ({ours})")
        if ours not in listing.epochs:
            return self.fence(f"our lease, epoch {ours}, was removed")
        if any(epoch == ours for epoch, _ in listing.gone):
            return self.fence("it was taken over by hand")
        return self._replace(paused=False)._clear(listing, before)

    def _clear(self, listing: Listing, before: float) -> LeaseHolder:
        seen = self._replace(looked_at=before)
        if self.operation is Operation.MARK_BUSY:
            return seen._replace(step=Verb.DONE, outcome=Holding.CLEAR)
        requested = self.kind is NodeKind.FOREIGN and self.epoch in listing.requested
        return seen._replace(step=Verb.WRITE, outcome=Holding.HANDOVER if requested else Holding.CLEAR)

    def _recreated(self, worked: bool, after: float) -> LeaseHolder:
        """Our name was gone. Nobody can own who missed it, if it was there again soon enough."""
        if worked and after - self.looked_at < self.policy.repair_s:
            return self._replace(step=Verb.WRITE)
        return self.fence(f"our lease, epoch {self.epoch}, was removed")

    def could_not_look(self) -> LeaseHolder:
        """The machine after a LIST that failed for want of descriptors or memory, which says nothing about the palace.

        Nothing may go into the engine now. The heartbeat goes on, so nobody can have taken us for dead; it needs no
        descriptor but its own.
        """
        if self.operation is Operation.MARK_BUSY:
            return self._replace(step=Verb.DONE, outcome=Holding.UNSURE)
        return self._replace(step=Verb.WRITE, outcome=Holding.UNSURE)

    def fence(self, reason: str) -> LeaseHolder:
        """Stop at once: the engine first."""
        return self._replace(step=Verb.KILL, operation=Operation.FENCE, reason=reason, outcome=None)

    def _wrote(self, worked: bool, before: float, after: float) -> LeaseHolder:
        paused = self.paused or after - self.written_at >= self.policy.steady_s
        ended = self._replace(
            step=Verb.DONE, operation=None, sequence=self.sequence + worked, written_at=before, paused=paused
        )
        if self.operation is Operation.FENCE:
            return ended._replace(over=True, busy=False, outcome=Holding.FENCED)
        if not worked:
            return self.fence("our lease could not be written")
        if self.operation is Operation.MARK_BUSY:
            return ended._replace(step=Verb.LIST, operation=Operation.MARK_BUSY, busy=True)
        if self.operation is Operation.RELEASE:
            return ended._replace(over=True, busy=False, outcome=Holding.CLEAR)
        busy = self.busy and self.operation is not Operation.MARK_IDLE
        return ended._replace(busy=busy, outcome=self.outcome or Holding.CLEAR)
