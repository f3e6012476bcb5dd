"""Dialogues with the machine that acquires a lease; tests/model has all that can happen between several."""

from __future__ import annotations

from mempalace_broker.lease.machine.acquire import Acquired, LeaseAcquirer
from mempalace_broker.lease.machine.lease import (
    LeaseAction,
    LeasePolicy,
    LeaseState,
    Listing,
    NodeKind,
    ObservedLease,
    Verb,
)

POLICY = LeasePolicy()


class Talk:
    """An acquirer, a folder, and a clock that jumps."""

    def __init__(self, kind: NodeKind, *seen: ObservedLease, deadline: float = 1000.0, minimum_epoch: int = 0) -> None:
        self.machine = LeaseAcquirer(kind, POLICY, deadline, minimum_epoch=minimum_epoch)
        self.folder = {s.epoch: s for s in seen}
        self.gone: frozenset[tuple[int, int]] = frozenset()
        self.requests: set[int] = set()
        self.now = 0.0
        self.did: list[LeaseAction] = []
        self.alive: set[int] = set()

    def step(self) -> None:
        do = self.machine.action
        self.did.append(do)
        before, result = self.now, self._perform(do)
        self.machine = self.machine.advance(result, before, self.now)

    def _perform(self, do: LeaseAction) -> Listing | ObservedLease | bool | None:
        if do.verb is Verb.LIST:
            return Listing(tuple(sorted(self.folder)), self.gone, frozenset(self.requests))
        if do.verb is Verb.READ:
            return self.folder[do.epoch]
        if do.verb is Verb.CREATE:
            taken = do.epoch in self.folder
            self.folder.setdefault(do.epoch, ObservedLease(do.epoch, LeaseState.EMPTY, kind=self.machine.kind))
            return not taken
        if do.verb is Verb.WRITE:
            self.folder[do.epoch] = ObservedLease(do.epoch, do.state, do.sequence, do.busy, self.machine.kind)
        if do.verb is Verb.REQUEST_HANDOVER:
            self.requests.add(do.epoch)
        if do.verb is Verb.SLEEP:
            self.now = max(self.now, do.until)
            for epoch in self.alive:
                seen = self.folder[epoch]
                self.folder[epoch] = seen._replace(sequence=seen.sequence + 1)
        return None

    def run(self, until: Verb = Verb.DONE) -> Acquired | None:
        while self.machine.step != until:
            self.step()
            assert len(self.did) < 1000
        return self.machine.outcome

    def verbs(self) -> list[Verb]:
        return [do.verb for do in self.did]


def test_a_host_alone_creates_and_writes_once() -> None:
    talk = Talk(NodeKind.HOST)
    assert talk.run() is Acquired.OURS
    assert talk.verbs() == [Verb.LIST, Verb.CREATE, Verb.WRITE]
    assert talk.folder[1].state is LeaseState.ACTIVE
    assert talk.now == 0


def test_a_host_after_a_release_or_a_death_waits_for_nothing() -> None:
    talk = Talk(
        NodeKind.HOST,
        ObservedLease(3, LeaseState.RELEASED),
        ObservedLease(4, LeaseState.ACTIVE, 9, True, NodeKind.HOST, True),
    )
    assert talk.run() is Acquired.OURS
    assert talk.machine.epoch == 5
    assert talk.now == 0
    assert talk.machine.stale == (3, 4)


def test_a_container_alone_settles() -> None:
    talk = Talk(NodeKind.FOREIGN)
    assert talk.run() is Acquired.OURS
    assert POLICY.settle_s <= talk.now < POLICY.settle_s + POLICY.poll_s
    states = [do.state for do in talk.did if do.verb is Verb.WRITE]
    assert states == [LeaseState.ACQUIRING, LeaseState.ACTIVE]


def test_the_minimum_epoch_is_exceeded() -> None:
    talk = Talk(NodeKind.HOST, minimum_epoch=41)
    assert talk.run() is Acquired.OURS
    assert talk.machine.epoch == 42


def test_a_container_leaves_a_live_owner_alone() -> None:
    talk = Talk(NodeKind.FOREIGN, ObservedLease(1, LeaseState.ACTIVE, 1, kind=NodeKind.HOST))
    talk.alive.add(1)
    assert talk.run() is Acquired.HELD
    assert talk.machine.blocker is not None
    assert talk.machine.blocker.epoch == 1
    assert Verb.CREATE not in talk.verbs()
    assert talk.now < POLICY.silence_s


def test_a_silent_idle_owner_is_taken_over_after_silence_and_settling() -> None:
    for kind in (NodeKind.HOST, NodeKind.FOREIGN):
        talk = Talk(kind, ObservedLease(1, LeaseState.ACTIVE, 1))
        assert talk.run() is Acquired.OURS
        assert talk.machine.epoch == 2
        assert POLICY.silence_s + POLICY.settle_s <= talk.now <= POLICY.silence_s + POLICY.settle_s + POLICY.poll_s


def test_a_silent_busy_or_unreadable_owner_is_in_doubt_and_nothing_is_created() -> None:
    for seen in (ObservedLease(1, LeaseState.ACTIVE, 1, True), ObservedLease(1, LeaseState.UNREADABLE)):
        talk = Talk(NodeKind.HOST, seen)
        assert talk.run() is Acquired.IN_DOUBT
        assert Verb.CREATE not in talk.verbs()


def test_an_owner_that_became_busy_while_we_settled_is_in_doubt_and_we_release() -> None:
    talk = Talk(NodeKind.FOREIGN, ObservedLease(1, LeaseState.ACTIVE, 1))
    talk.run(until=Verb.CREATE)
    talk.step()
    talk.folder[1] = ObservedLease(1, LeaseState.ACTIVE, 2, True)
    assert talk.run() is Acquired.IN_DOUBT
    assert talk.folder[2].state is LeaseState.RELEASED


def test_a_person_s_word_counts_only_for_that_sequence() -> None:
    for sequence, outcome in ((7, Acquired.OURS), (6, Acquired.IN_DOUBT)):
        talk = Talk(NodeKind.HOST, ObservedLease(1, LeaseState.ACTIVE, 7, True))
        talk.gone = frozenset({(1, sequence)})
        assert talk.run() == outcome


def test_a_host_asks_a_container_and_waits_for_its_release() -> None:
    talk = Talk(NodeKind.HOST, ObservedLease(1, LeaseState.ACTIVE, 1, True, NodeKind.FOREIGN))
    talk.alive.add(1)
    talk.run(until=Verb.REQUEST_HANDOVER)
    talk.step()
    assert talk.requests == {1}
    for _ in range(50):
        talk.step()
    assert talk.machine.step is not Verb.DONE
    talk.alive.clear()
    talk.folder[1] = ObservedLease(1, LeaseState.RELEASED, 99, kind=NodeKind.FOREIGN)
    assert talk.run() is Acquired.OURS


def test_a_host_gives_up_asking_at_its_deadline_and_never_asks_a_host() -> None:
    for kind in NodeKind:
        asking = Talk(kind, ObservedLease(1, LeaseState.ACTIVE, 1, kind=NodeKind.FOREIGN), deadline=20.0)
        asking.alive.add(1)
        assert asking.run() is Acquired.HELD
        assert asking.now == (20.0 if kind is NodeKind.HOST else POLICY.poll_s)
    other = Talk(NodeKind.HOST, ObservedLease(1, LeaseState.ACTIVE, 1, kind=NodeKind.HOST))
    other.alive.add(1)
    assert other.run() is Acquired.HELD
    assert Verb.REQUEST_HANDOVER not in other.verbs()


def test_a_container_that_settles_gives_way_to_the_host() -> None:
    talk = Talk(NodeKind.FOREIGN)
    talk.run(until=Verb.SLEEP)
    talk.requests.add(1)
    assert talk.run() is Acquired.HANDOVER
    assert talk.folder[1].state is LeaseState.RELEASED


def test_a_container_that_settles_gives_way_to_a_higher_generation() -> None:
    talk = Talk(NodeKind.FOREIGN)
    talk.run(until=Verb.SLEEP)
    talk.folder[2] = ObservedLease(2, LeaseState.ACTIVE, 1, kind=NodeKind.HOST)
    talk.alive.add(2)
    assert talk.run() is Acquired.HELD
    assert talk.folder[1].state is LeaseState.RELEASED


def test_a_loser_begins_again_but_not_for_ever() -> None:
    talk = Talk(NodeKind.FOREIGN)
    while talk.machine.step is not Verb.DONE:
        if talk.machine.step is Verb.CREATE:
            epoch = talk.machine.action.epoch
            talk.folder[epoch] = ObservedLease(epoch, LeaseState.RELEASED, kind=NodeKind.HOST)
        talk.step()
    assert talk.machine.outcome is Acquired.CONTENDED
    assert talk.verbs().count(Verb.CREATE) == POLICY.tries + 1


def test_who_loses_its_name_while_it_settles_begins_again() -> None:
    talk = Talk(NodeKind.FOREIGN)
    talk.run(until=Verb.SLEEP)
    del talk.folder[1]
    assert talk.run() is Acquired.OURS
    assert talk.verbs().count(Verb.CREATE) == 2
    assert talk.now >= POLICY.settle_s, "it settled anew"


def test_silence_is_judged_when_a_record_is_read_not_later() -> None:
    talk = Talk(NodeKind.FOREIGN, *(ObservedLease(epoch, LeaseState.ACTIVE, 1) for epoch in (1, 2)))
    for _ in range(3):
        talk.step()
    while talk.machine.action != LeaseAction(Verb.READ, 2):
        talk.step()
    talk.now += POLICY.silence_s  # paused between the two
    talk.step()
    assert talk.machine.step is Verb.SLEEP


def test_what_others_made_and_never_wrote_goes_after_a_host_came() -> None:
    made = [ObservedLease(epoch, LeaseState.EMPTY) for epoch in range(1, 5)]
    idle = ObservedLease(5, LeaseState.ACTIVE, 9)
    talk = Talk(NodeKind.HOST, *made, idle)
    assert talk.run() is Acquired.OURS
    assert talk.machine.stale == (1, 2, 3, 4), "who owned may be asked about"
    assert talk.now < POLICY.silence_s + POLICY.settle_s + 2 * POLICY.poll_s
    container = Talk(NodeKind.FOREIGN, *made)
    assert container.run() is Acquired.OURS
    assert container.machine.stale == ()


class CountedEpoch(int):
    """An epoch that counts how often any of them is compared or looked up."""

    uses = 0

    def __eq__(self, other: object) -> bool:
        CountedEpoch.uses += 1
        return int(self) == other

    def __ne__(self, other: object) -> bool:
        CountedEpoch.uses += 1
        return int(self) != other

    def __lt__(self, other: int) -> bool:
        CountedEpoch.uses += 1
        return int(self) < other

    def __gt__(self, other: int) -> bool:
        CountedEpoch.uses += 1
        return int(self) > other

    def __hash__(self) -> int:
        CountedEpoch.uses += 1
        return hash(int(self))


def test_a_thousand_leases_are_judged_quickly() -> None:
    """Ten times as many, which anybody can make, once took a hundred times as many steps."""

    def spent(count: int) -> int:
        epochs = map(CountedEpoch, range(1, count + 1))
        talk = Talk(NodeKind.HOST, *(ObservedLease(epoch, LeaseState.EMPTY) for epoch in epochs))
        CountedEpoch.uses = 0
        while talk.machine.step is not Verb.SLEEP:
            talk.step()
        return CountedEpoch.uses

    few = spent(100)
    assert few >= 100
    assert spent(1000) < 15 * few, "each is looked up among the others, but not compared with each of them"
