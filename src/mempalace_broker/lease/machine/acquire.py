"""How a broker gets the lease of a palace, as a pure machine. The theory stands in lease.py."""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum
from typing import NamedTuple

from .lease import MAX_EPOCH, LeaseAction, LeasePolicy, LeaseState, Listing, NodeKind, ObservedLease, Verb


class Acquired(StrEnum):
    """How an acquisition ended."""

    OURS = "ours"
    HELD = "held"  # a live broker has it
    IN_DOUBT = "in doubt"  # its holder is silent, and perhaps in the middle of a write
    HANDOVER = "handover"  # the host wants it
    CONTENDED = "contended"  # others were quicker again and again
    EXHAUSTED = "exhausted"  # there is no higher epoch


class Heartbeat(NamedTuple):
    """A lease's last sequence, until when it may be silent, whether the sequence ever moved, and whether the last look
    at the record, not a later moment, found it silent.
    """

    epoch: int
    sequence: int
    until: float
    moved: bool = False
    silent: bool = False


class LeaseAcquirer(NamedTuple):
    """A broker that wants the palace. `action` says what to do next; `advance` takes the result.

    Attributes:
        kind, policy: ours. deadline: when to stop waiting for a handover or a heartbeat.
        minimum_epoch: our epoch must be higher than this.
        step: the verb of the action, DONE at the end. after_write: what follows the write under way.
        outcome, blocker: the end, and the lease in the way.
        epoch, sequence: our epoch and our record's sequence, 0 while we have none.
        settled: the round under way began after the settle time; asked only once we have an epoch.
        unread: epochs of this round that are still to be read. observed: those that were.
        requested: the epoch that we asked to hand over. target: the epoch of the action.
        stale: epochs below ours that can be removed, once everybody sees ours.
    """

    kind: NodeKind
    policy: LeasePolicy
    deadline: float = float("inf")
    minimum_epoch: int = 0
    step: Verb = Verb.LIST
    after_write: Verb | Acquired | None = None
    epoch: int = 0
    sequence: int = 0
    settled: bool = False
    wake: float = 0.0
    settle_until: float = 0.0
    listing: Listing = Listing()
    unread: tuple[int, ...] = ()
    observed: tuple[ObservedLease, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()
    requested: int = 0
    target: int = 0
    tries: int = 0
    outcome: Acquired | None = None
    blocker: ObservedLease | None = None
    stale: tuple[int, ...] = ()

    @property
    def action(self) -> LeaseAction:
        """What to do next; verb DONE when there is an outcome."""
        if self.step is Verb.READ:
            return LeaseAction(Verb.READ, self.unread[0])
        if self.step is Verb.WRITE:
            states: dict[object, LeaseState] = {
                Acquired.OURS: LeaseState.ACTIVE,
                Verb.SLEEP: LeaseState.ACQUIRING,
            }
            state = states.get(self.after_write, LeaseState.RELEASED)
            return LeaseAction(Verb.WRITE, self.epoch, state, self.sequence + 1)
        if self.step is Verb.SLEEP:
            return LeaseAction(Verb.SLEEP, until=self.wake)
        return LeaseAction(self.step, self.target)

    def advance(self, result: Listing | ObservedLease | bool | None, before: float, after: float) -> LeaseAcquirer:
        """The machine after its action.

        Args:
            result: of LIST and READ what was seen; of CREATE whether we were the one; else None.
            before, after: the time just before and just after the action.
        """
        if isinstance(result, Listing):
            unread = tuple(epoch for epoch in result.epochs if epoch != self.epoch)
            listed = self._replace(listing=result, unread=unread, observed=(), step=Verb.READ)
            return listed._read_on(before)
        if isinstance(result, ObservedLease):
            return self._note(result, before)._read_on(before)
        if self.step is Verb.SLEEP:
            return self._replace(step=Verb.LIST, settled=after >= self.settle_until, wake=0.0)
        if self.step is Verb.CREATE:
            return self._created(after) if result else self._begin_again()
        if self.step is Verb.REQUEST_HANDOVER:
            return self._wait(after)
        return self._written(after)

    def renew(self) -> tuple[LeaseAcquirer, LeaseAction]:
        """The next heartbeat, while it settles."""
        sequence = self.sequence + 1
        return self._replace(sequence=sequence), LeaseAction(Verb.WRITE, self.epoch, LeaseState.ACQUIRING, sequence)

    # -- one round: list, read, judge

    def _note(self, lease: ObservedLease, now: float) -> LeaseAcquirer:
        """Take a record and its heartbeat into account."""
        beats = self.heartbeats  # by epoch: there may be thousands, which a guest made
        at = bisect_left(beats, lease.epoch, key=lambda beat: beat.epoch)
        last = beats[at] if at < len(beats) and beats[at].epoch == lease.epoch else None
        beyond = at if last is None else at + 1
        if last is None or last.sequence != lease.sequence:
            last = Heartbeat(lease.epoch, lease.sequence, now + self.policy.silence_s, last is not None)
        last = last._replace(silent=now >= last.until)
        return self._replace(
            unread=self.unread[1:],
            observed=(*self.observed, lease),
            heartbeats=(*beats[:at], last, *beats[beyond:]),
        )

    def _read_on(self, now: float) -> LeaseAcquirer:
        return self if self.unread else self._judge(now)

    def _judge(self, now: float) -> LeaseAcquirer:
        """Choose the next step after everything was read."""
        listing = self.listing
        open_ = [lease for lease in self.observed if not lease.is_resolved(listing)]
        watched = {lease.epoch for lease in open_}
        next_round = self._replace(
            stale=(),
            heartbeats=tuple(beat for beat in self.heartbeats if beat.epoch in watched),
            observed=(),
            listing=Listing(),
            after_write=None,
        )
        if self.epoch:
            if self.epoch not in listing.epochs:  # somebody removed it: to others it never was there
                return next_round._replace(sequence=0)._begin_again()
            if listing.top > self.epoch:  # another node came after us: release, look again
                return next_round._replace(step=Verb.WRITE, after_write=Verb.LIST)
            if self.kind is NodeKind.FOREIGN and self.epoch in listing.requested:
                return next_round._refuse(Acquired.HANDOVER, None)
            if not self.settled:
                return next_round._wait(now)
        decided = next_round._decide(open_, listing, now)
        if decided.step is not Verb.CREATE and decided.after_write is not Acquired.OURS:
            return decided
        return decided._replace(stale=tuple(lease.epoch for lease in self.observed if self._is_stale(lease, listing)))

    def _is_stale(self, lease: ObservedLease, listing: Listing) -> bool:
        """Whether its name can go once all see ours. A candidate below a host never owns: it finds ours, or its own
        name gone, and begins again. Anybody can make thousands of such names, and each start would wait for them.
        """
        overtaken = self.kind is NodeKind.HOST and lease.state in (LeaseState.EMPTY, LeaseState.ACQUIRING)
        return lease.is_resolved(listing) or (overtaken and not lease.busy)

    def _decide(self, open_: list[ObservedLease], listing: Listing, now: float) -> LeaseAcquirer:
        beats = {beat.epoch: beat for beat in self.heartbeats}
        live = [lease for lease in open_ if not beats[lease.epoch].silent]
        silent = [lease for lease in open_ if beats[lease.epoch].silent]
        for lease in live:
            if beats[lease.epoch].moved and not self.epoch and lease.epoch == listing.top:
                return self._meet(lease, now)
        doubtful = [lease for lease in silent if lease.busy or lease.state is LeaseState.UNREADABLE]
        if doubtful:
            return self._refuse(Acquired.IN_DOUBT, doubtful[-1])
        if live:
            return self._wait(now) if now < self.deadline else self._refuse(Acquired.HELD, live[-1])
        if self.epoch:
            return self._replace(step=Verb.WRITE, after_write=Acquired.OURS)
        target = max(listing.top, listing.taken, self.minimum_epoch) + 1
        if target > MAX_EPOCH:
            return self._refuse(Acquired.EXHAUSTED, None)
        needs_no_settling = self.kind is NodeKind.HOST and not open_
        return self._replace(
            step=Verb.CREATE,
            target=target,
            after_write=Acquired.OURS if needs_no_settling else Verb.SLEEP,
        )

    def _meet(self, holder: ObservedLease, now: float) -> LeaseAcquirer:
        """The highest lease is alive: a host asks a foreign holder to hand over, everybody else gives up."""
        if self.kind is not NodeKind.HOST or holder.kind is not NodeKind.FOREIGN or now >= self.deadline:
            return self._refuse(Acquired.HELD, holder)
        if self.requested == holder.epoch:
            return self._wait(now)
        return self._replace(step=Verb.REQUEST_HANDOVER, target=holder.epoch, requested=holder.epoch)

    # -- what follows

    def _wait(self, now: float) -> LeaseAcquirer:
        return self._replace(step=Verb.SLEEP, wake=now + self.policy.poll_s, settled=False, target=0)

    def _created(self, now: float) -> LeaseAcquirer:
        """The name is ours. The settle time begins now: the name can't be younger than this moment."""
        until = now + self.policy.settle_s
        return self._replace(step=Verb.WRITE, epoch=self.target, target=0, settle_until=until)

    def _begin_again(self) -> LeaseAcquirer:
        if self.tries >= self.policy.tries:
            return self._replace(step=Verb.DONE, outcome=Acquired.CONTENDED, epoch=0)
        return self._replace(
            step=Verb.LIST,
            tries=self.tries + 1,
            epoch=0,
            target=0,
            after_write=None,
            settled=False,
            settle_until=0.0,
            heartbeats=(),
            stale=(),
        )

    def _written(self, now: float) -> LeaseAcquirer:
        written = self._replace(sequence=self.sequence + 1)
        if self.after_write is Verb.SLEEP:
            return written._replace(stale=())._wait(now)
        if self.after_write is Verb.LIST:
            return written._replace(sequence=0)._begin_again()
        assert isinstance(self.after_write, Acquired)
        if self.after_write is Acquired.OURS:
            return written._replace(step=Verb.DONE, outcome=Acquired.OURS, heartbeats=())
        return written._replace(step=Verb.DONE, outcome=self.after_write, epoch=0)

    def _refuse(self, outcome: Acquired, blocker: ObservedLease | None) -> LeaseAcquirer:
        """Give up; our own lease, if any, is released first."""
        refused = self._replace(after_write=outcome, blocker=blocker, heartbeats=())
        return refused._replace(step=Verb.WRITE) if self.epoch else refused._replace(step=Verb.DONE, outcome=outcome)
