"""Dialogues with the claim machines; tests/model has all that can happen between them."""

from __future__ import annotations

from mempalace_broker.lease.machine.lease import (
    ACTIVE,
    ASK,
    ASKED,
    CLAIMING,
    CLEAR,
    CREATE,
    CROWDED,
    DONE,
    EMPTY,
    FENCED,
    FOREIGN,
    HELD,
    HOST,
    IN_DOUBT,
    KILL,
    LIST,
    OWN,
    READ,
    RELEASED,
    SLEEP,
    UNREADABLE,
    WRITE,
    Claimant,
    Do,
    Listing,
    Owner,
    Rules,
    Seen,
)

RULES = Rules()


class Talk:
    """A claimant, a folder, and a clock that jumps."""

    def __init__(self, kind: str, *seen: Seen, deadline: float = 1000.0, floor: int = 0) -> None:
        self.machine = Claimant(kind, RULES, deadline, floor=floor)
        self.folder = {s.generation: s for s in seen}
        self.gone: frozenset[tuple[int, int]] = frozenset()
        self.asks: set[int] = set()
        self.now = 0.0
        self.did: list[Do] = []
        self.alive: set[int] = set()

    def step(self) -> Do:
        do = self.machine.action
        self.did.append(do)
        before, result = self.now, self._perform(do)
        self.machine = self.machine.advance(result, before, self.now)
        return do

    def _perform(self, do: Do) -> object:
        if do.verb == LIST:
            return Listing(tuple(sorted(self.folder)), self.gone, frozenset(self.asks))
        if do.verb == READ:
            return self.folder[do.generation]
        if do.verb == CREATE:
            taken = do.generation in self.folder
            self.folder.setdefault(do.generation, Seen(do.generation, EMPTY, kind=self.machine.kind))
            return not taken
        if do.verb == WRITE:
            self.folder[do.generation] = Seen(do.generation, do.state, do.sequence, do.busy, self.machine.kind)
        if do.verb == ASK:
            self.asks.add(do.generation)
        if do.verb == SLEEP:
            self.now = max(self.now, do.until)
            for generation in self.alive:
                seen = self.folder[generation]
                self.folder[generation] = seen._replace(sequence=seen.sequence + 1)
        return None

    def run(self, until: str = DONE) -> str:
        while self.machine.step != until:
            self.step()
            assert len(self.did) < 1000
        return self.machine.verdict

    def verbs(self) -> list[str]:
        return [do.verb for do in self.did]


def test_a_host_alone_creates_and_writes_once() -> None:
    talk = Talk(HOST)
    assert talk.run() == OWN
    assert talk.verbs() == [LIST, CREATE, WRITE]
    assert talk.folder[1].state == ACTIVE
    assert talk.now == 0


def test_a_host_after_a_release_or_a_death_waits_for_nothing() -> None:
    talk = Talk(HOST, Seen(3, RELEASED), Seen(4, ACTIVE, 9, True, HOST, True))
    assert talk.run() == OWN
    assert talk.machine.mine == 5
    assert talk.now == 0
    assert talk.machine.litter == (3, 4)
    assert talk.machine.inherited == (4,)


def test_a_container_alone_settles() -> None:
    talk = Talk(FOREIGN)
    assert talk.run() == OWN
    assert talk.now >= RULES.settle_s
    states = [do.state for do in talk.did if do.verb == WRITE]
    assert states == [CLAIMING, ACTIVE]


def test_the_floor_counts() -> None:
    talk = Talk(HOST, floor=41)
    assert talk.run() == OWN
    assert talk.machine.mine == 42


def test_a_container_leaves_a_live_owner_alone() -> None:
    talk = Talk(FOREIGN, Seen(1, ACTIVE, 1, kind=HOST))
    talk.alive.add(1)
    assert talk.run() == HELD
    assert talk.machine.holder is not None
    assert talk.machine.holder.generation == 1
    assert CREATE not in talk.verbs()
    assert talk.now < RULES.silence_s


def test_a_silent_idle_owner_is_taken_over_after_silence_and_settling() -> None:
    for kind in (HOST, FOREIGN):
        talk = Talk(kind, Seen(1, ACTIVE, 1))
        assert talk.run() == OWN
        assert talk.machine.mine == 2
        assert talk.now >= RULES.silence_s + RULES.settle_s


def test_a_silent_busy_or_unreadable_owner_is_in_doubt_and_nothing_is_created() -> None:
    for seen in (Seen(1, ACTIVE, 1, True), Seen(1, UNREADABLE)):
        talk = Talk(HOST, seen)
        assert talk.run() == IN_DOUBT
        assert CREATE not in talk.verbs()


def test_an_owner_that_became_busy_while_we_settled_is_in_doubt_and_we_release() -> None:
    talk = Talk(FOREIGN, Seen(1, ACTIVE, 1))
    talk.run(until=CREATE)
    talk.step()
    talk.folder[1] = Seen(1, ACTIVE, 2, True)
    assert talk.run() == IN_DOUBT
    assert talk.folder[2].state == RELEASED


def test_a_person_s_word_counts_only_for_that_sequence() -> None:
    for sequence, verdict in ((7, OWN), (6, IN_DOUBT)):
        talk = Talk(HOST, Seen(1, ACTIVE, 7, True))
        talk.gone = frozenset({(1, sequence)})
        assert talk.run() == verdict


def test_a_host_asks_a_container_and_waits_for_its_release() -> None:
    talk = Talk(HOST, Seen(1, ACTIVE, 1, True, FOREIGN))
    talk.alive.add(1)
    talk.run(until=ASK)
    talk.step()
    assert talk.asks == {1}
    for _ in range(50):
        talk.step()
    assert talk.machine.step != DONE
    talk.alive.clear()
    talk.folder[1] = Seen(1, RELEASED, 99, kind=FOREIGN)
    assert talk.run() == OWN


def test_a_host_gives_up_asking_at_its_deadline_and_never_asks_a_host() -> None:
    asking = Talk(HOST, Seen(1, ACTIVE, 1, kind=FOREIGN), deadline=20.0)
    asking.alive.add(1)
    assert asking.run() == HELD
    assert 20 <= asking.now < 22
    other = Talk(HOST, Seen(1, ACTIVE, 1, kind=HOST))
    other.alive.add(1)
    assert other.run() == HELD
    assert ASK not in other.verbs()


def test_a_container_that_settles_gives_way_to_the_host() -> None:
    talk = Talk(FOREIGN)
    talk.run(until=SLEEP)
    talk.asks.add(1)
    assert talk.run() == ASKED
    assert talk.folder[1].state == RELEASED


def test_a_container_that_settles_gives_way_to_a_higher_generation() -> None:
    talk = Talk(FOREIGN)
    talk.run(until=SLEEP)
    talk.folder[2] = Seen(2, ACTIVE, 1, kind=HOST)
    talk.alive.add(2)
    assert talk.run() == HELD
    assert talk.folder[1].state == RELEASED


def test_a_loser_begins_again_but_not_for_ever() -> None:
    talk = Talk(FOREIGN)
    while talk.machine.step != DONE:
        if talk.machine.step == CREATE:
            generation = talk.machine.action.generation
            talk.folder[generation] = Seen(generation, RELEASED, kind=HOST)
        talk.step()
    assert talk.machine.verdict == CROWDED
    assert talk.verbs().count(CREATE) == RULES.tries + 1


# --- the owner


def run(owner: Owner, *results: object) -> tuple[Owner, list[Do]]:
    """Carry out an operation with these results; the machine and what it did."""
    did = []
    for result in results:
        assert owner.step
        did.append(owner.action)
        owner = owner.advance(result)
    assert not owner.step
    return owner, did


ALONE = Listing((5,))
OWNER = Owner(5, FOREIGN, 2)


def test_the_flag_is_written_before_the_look_and_only_once() -> None:
    owner, did = run(OWNER.need(), True, ALONE)
    assert owner.verdict == CLEAR
    assert did == [Do(WRITE, 5, ACTIVE, 3, True), Do(LIST, 5)]
    again, did = run(owner.need(), ALONE)
    assert again.verdict == CLEAR
    assert [do.verb for do in did] == [LIST]
    idle, did = run(again.idle(), True)
    assert did == [Do(WRITE, 5, ACTIVE, 4, False)]
    assert not idle.busy
    assert idle.idle() == idle


def test_a_heartbeat_keeps_the_flag_and_hears_who_asks() -> None:
    busy, _ = run(OWNER.need(), True, ALONE)
    owner, did = run(busy.beat(), Listing((5,), asks=frozenset({5})), True)
    assert did[-1] == Do(WRITE, 5, ACTIVE, 4, True)
    assert owner.verdict == ASKED
    deaf, _ = run(OWNER._replace(kind=HOST).beat(), Listing((5,), asks=frozenset({5})), True)
    assert deaf.verdict == CLEAR
    other, _ = run(OWNER.beat(), Listing((5,), asks=frozenset({4})), True)
    assert other.verdict == CLEAR


def test_every_bad_sign_fences_and_the_engine_goes_first() -> None:
    busy, _ = run(OWNER.need(), True, ALONE)
    for listing in (Listing((5, 6)), Listing(()), Listing((5,), gone=frozenset({(5, 1)})), None):
        owner, did = run(busy.beat(), listing, True, True)
        assert [do.verb for do in did] == [LIST, KILL, WRITE]
        assert did[-1].state == RELEASED
        assert owner.verdict == FENCED
        assert owner.over
        assert owner.need().verdict == FENCED
    owner, did = run(OWNER.need(), False, True, True)
    assert [do.verb for do in did] == [WRITE, KILL, WRITE]
    assert owner.over


def test_an_engine_that_does_not_die_is_never_called_released() -> None:
    busy, _ = run(OWNER.need(), True, ALONE)
    owner, did = run(busy.beat(), Listing((5, 6)), False)
    assert [do.verb for do in did] == [LIST, KILL]
    assert owner.over


def test_leaving_releases_once() -> None:
    owner, did = run(OWNER.leave(), True)
    assert did == [Do(WRITE, 5, RELEASED, 3, False)]
    assert owner.over
    assert owner.leave() == owner
    assert owner.beat() == owner
