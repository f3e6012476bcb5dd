"""Who owns the palace where locks do not reach: claims, as two pure machines. No IO, no clock.

A *generation* is a file name that is created once (O_EXCL has one winner on every share); it holds one record, written
in place by its creator alone. The generation number is the owner's epoch. A node is one kernel: inside it broker.lock
elects one broker, so a node has one live claim at most, and knows of its dead ones that they are dead.

    Claimant    list, read what is open, judge; create the next generation; settle; list and read again; own or refuse
    Owner       before a call goes in: busy = 1, *then* look for a higher generation, and only then dispatch
                every second: look for a higher generation and for askers, write the next sequence
                a higher generation, or a write that failed: kill the engine, *then* release; never the other way round

Why two nodes never write at once. Names and records are seen at the latest D after they were made. Let g < h both be
owners. h created its name, waited S > 2 D, and then read g's record: released, proven dead, or silent with busy = 0.
In the last case g's busy = 1, if any, was written less than D before h looked, that is more than D after h's name was
there; so g, which looks for higher names after it wrote the flag, sees h and dispatches nothing. (Dekker's algorithm
with the settle time in place of sequential consistency.) Silence is no part of this: it keeps a live owner from being
disturbed; it proves nothing. An owner that is silent with busy = 1 may be paused inside a write: nobody takes over.

The one who starts with nothing open below and sees names without delay (the host: it has the files) needs no settle:
everybody who comes later finds its name, or fails to create the same one.

Times are monotonic seconds of the reader; tests/model runs these very machines through all interleavings.
"""

from __future__ import annotations

from typing import Any, NamedTuple

HOST, FOREIGN = "host", "foreign"
KINDS = (HOST, FOREIGN)

CLAIMING, ACTIVE, RELEASED = "claiming", "active", "released"
STATES = (CLAIMING, ACTIVE, RELEASED)
EMPTY, UNREADABLE, MISSING = "empty", "unreadable", "missing"  # what a reader may find instead

# what a machine wants done; the answer goes into `advance`
LIST, READ, CREATE, WRITE, SLEEP, ASK, REMOVE, KILL = (
    "list",
    "read",
    "create",
    "write",
    "sleep",
    "ask",
    "remove",
    "kill",
)
DONE = "done"

# a claimant's end
OWN = "own"
HELD = "held"  # somebody lives there
IN_DOUBT = "in_doubt"  # silent, and perhaps in the middle of a write
ASKED = "asked"  # the host wants it
CROWDED = "crowded"  # others were quicker again and again
# an owner's findings; ASKED as well
CLEAR, FENCED = "clear", "fenced"

VISIBLE_S = 1.5  # D: names and records are seen within this; measured at most 1.0 s (docs/claims.md)


class Rules(NamedTuple):
    """Seconds: how long silence lasts (T), the settle time (S > 2 D), the pause between two looks, the heartbeat.

    tries: how often a claimant begins again.
    """

    silence_s: float = 5.0
    settle_s: float = 2 * VISIBLE_S + 0.5
    poll_s: float = 0.25
    beat_s: float = 1.0
    tries: int = 8


class Listing(NamedTuple):
    """The folder's names: generations, (generation, sequence) that a person declared gone, generations asked for."""

    generations: tuple[int, ...] = ()
    gone: frozenset[tuple[int, int]] = frozenset()
    asks: frozenset[int] = frozenset()


class Seen(NamedTuple):
    """One generation as it was read; `dead`: its broker is dead by a fact of the reader's own kernel."""

    generation: int
    state: str
    sequence: int = 0
    busy: bool = False
    kind: str = FOREIGN
    dead: bool = False

    def resolved(self, gone: frozenset[tuple[int, int]]) -> bool:
        """Whether it will never write again."""
        if self.state in (RELEASED, MISSING) or self.dead:
            return True
        return (self.generation, self.sequence) in gone


class Watch(NamedTuple):
    """What we know of a generation's pulse: its sequence, until when it may be silent, whether it ever moved."""

    generation: int
    sequence: int
    until: float
    moved: bool = False


class Do(NamedTuple):
    """One thing to do; which fields count depends on `verb`."""

    verb: str
    generation: int = 0
    state: str = ""
    sequence: int = 0
    busy: bool = False
    until: float = 0.0


class Claimant(NamedTuple):
    """A broker that wants the palace. `action` says what to do next; `advance` takes what came of it.

    Attributes:
        kind, rules: ours. deadline: when to stop waiting for a handover or a pulse.
        step: the verb of the action, DONE at the end. verdict, holder: the end, and who is in the way.
        mine, sequence: our generation and our record's sequence, 0 while we have none.
        settled: the round under way began after the settle time.
        litter: generations below ours that can be removed. inherited: those of them whose engine may still run.
        asked: the generation that we asked for. floor: our generation must be higher than this.
    """

    kind: str
    rules: Rules
    deadline: float = float("inf")
    step: str = LIST
    mine: int = 0
    sequence: int = 0
    settled: bool = False
    wake: float = 0.0
    settle_until: float = 0.0
    listing: Listing = Listing()
    todo: tuple[int, ...] = ()
    seen: tuple[Seen, ...] = ()
    watches: tuple[Watch, ...] = ()
    asked: int = 0
    target: int = 0
    goal: str = ""
    tries: int = 0
    verdict: str = ""
    holder: Seen | None = None
    litter: tuple[int, ...] = ()
    inherited: tuple[int, ...] = ()
    floor: int = 0

    @property
    def action(self) -> Do:
        """What to do next; verb DONE when there is a verdict."""
        step = self.step
        if step == READ:
            return Do(READ, self.todo[0])
        if step == WRITE:
            state = {OWN: ACTIVE, SLEEP: CLAIMING}.get(self.goal, RELEASED)
            return Do(WRITE, self.mine, state, self.sequence + 1)
        if step == SLEEP:
            return Do(SLEEP, until=self.wake)
        return Do(step, self.target)

    def advance(self, result: Any, before: float, after: float) -> Claimant:
        """The machine after its action.

        Args:
            result: LIST: Listing; READ: Seen; CREATE: whether we were the one; else nothing.
            before, after: the time just before and just after it was done.
        """
        step = self.step
        if step == LIST:
            todo = tuple(g for g in result.generations if g != self.mine)
            return self._replace(listing=result, todo=todo, seen=(), step=READ)._read_on(before)
        if step == READ:
            return self._took(result, before)._read_on(before)
        if step == SLEEP:
            settled = self.mine > 0 and after >= self.settle_until
            return self._replace(step=LIST, settled=settled, wake=0.0)
        if step == CREATE:
            return self._created(after) if result else self._again()
        if step == ASK:
            return self._wait(after)
        return self._written(after)

    # -- one round: list, read, judge

    def _took(self, seen: Seen, now: float) -> Claimant:
        """Note a record and its pulse."""
        rest = tuple(w for w in self.watches if w.generation != seen.generation)
        old = next((w for w in self.watches if w.generation == seen.generation), None)
        if old is None or old.sequence != seen.sequence:
            watch = Watch(seen.generation, seen.sequence, now + self.rules.silence_s, old is not None)
        else:
            watch = old
        return self._replace(todo=self.todo[1:], seen=(*self.seen, seen), watches=tuple(sorted((*rest, watch))))

    def _read_on(self, now: float) -> Claimant:
        return self if self.todo else self._judge(now)

    def _judge(self, now: float) -> Claimant:
        """All is read: what now?"""
        gone = self.listing.gone
        open_ = [s for s in self.seen if not s.resolved(gone)]
        calm = self._replace(
            litter=(),
            inherited=(),
            watches=tuple(w for w in self.watches if any(w.generation == s.generation for s in open_)),
            seen=(),
            listing=Listing(),
            goal="",
        )
        top = max(self.listing.generations, default=0)
        if self.mine:
            if top > self.mine:
                return calm._replace(step=WRITE, goal=LIST)  # somebody came after us: let go, look again
            if self.mine in self.listing.asks:
                return calm._refuse(ASKED, None)
            if not self.settled:
                return calm._wait(now)
        ahead = calm._decide(open_, top, now)
        if ahead.step not in (CREATE, WRITE) or ahead.goal not in (OWN, SLEEP):
            return ahead
        return ahead._replace(
            litter=tuple(s.generation for s in self.seen if s.resolved(gone)),
            inherited=tuple(s.generation for s in self.seen if s.dead and s.state != RELEASED),
        )

    def _decide(self, open_: list[Seen], top: int, now: float) -> Claimant:
        pulses = {w.generation: w for w in self.watches}
        live = [s for s in open_ if now < pulses[s.generation].until]
        for seen in live:
            if pulses[seen.generation].moved and not self.mine and seen.generation == top:
                return self._meet(seen, now)
        doubtful = [s for s in open_ if s not in live and (s.busy or s.state == UNREADABLE)]
        if doubtful:
            return self._refuse(IN_DOUBT, doubtful[-1])
        if live:
            return self._wait(now) if now < self.deadline else self._refuse(HELD, live[-1])
        if self.mine:
            return self._replace(step=WRITE, goal=OWN)
        fast = self.kind == HOST and not open_
        return self._replace(step=CREATE, target=max(top, self.floor) + 1, goal=OWN if fast else SLEEP)

    def _meet(self, holder: Seen, now: float) -> Claimant:
        """The highest claim lives: a host asks a foreign one to hand over, everybody else gives up."""
        if self.kind != HOST or holder.kind != FOREIGN or now >= self.deadline:
            return self._refuse(HELD, holder)
        if self.asked == holder.generation:
            return self._wait(now)
        return self._replace(step=ASK, target=holder.generation, asked=holder.generation)

    # -- what follows

    def _wait(self, now: float) -> Claimant:
        return self._replace(step=SLEEP, wake=now + self.rules.poll_s, settled=False, target=0)

    def _created(self, now: float) -> Claimant:
        """The name is ours. The settle time begins now: the name can't be younger than this moment."""
        until = now + self.rules.settle_s
        return self._replace(step=WRITE, mine=self.target, target=0, settle_until=until)

    def _again(self) -> Claimant:
        """From the beginning, unless that was often enough."""
        if self.tries >= self.rules.tries:
            return self._replace(step=DONE, verdict=CROWDED, mine=0)
        fresh = self._replace(mine=0, target=0, goal="", settled=False, settle_until=0.0, watches=(), litter=())
        return fresh._replace(step=LIST, inherited=(), tries=self.tries + 1)

    def _written(self, now: float) -> Claimant:
        done = self._replace(sequence=self.sequence + 1)
        if self.goal == OWN:
            return done._replace(step=DONE, verdict=OWN, watches=())
        if self.goal == SLEEP:
            return done._replace(litter=(), inherited=())._wait(now)
        if self.goal == LIST:
            return done._replace(sequence=0)._again()
        return done._replace(step=DONE, verdict=self.goal, mine=0)

    def _refuse(self, verdict: str, holder: Seen | None) -> Claimant:
        """Give up; our own claim, if any, is released first."""
        step = WRITE if self.mine else DONE
        return self._replace(step=step, goal=verdict, verdict="" if self.mine else verdict, holder=holder, watches=())

    def beat(self) -> tuple[Claimant, Do]:
        """While it settles: the next sequence for our record."""
        return self._replace(sequence=self.sequence + 1), Do(WRITE, self.mine, CLAIMING, self.sequence + 1)


class Owner(NamedTuple):
    """A broker that owns the palace. An operation (`need`, `beat`, `idle`, `leave`) sets `step`; carry out `action` and
    `advance` until `step` is empty; `verdict` is what came of it.

    Attributes:
        over: released; nothing may be done any more. why: why it was fenced, for people.
    """

    generation: int
    kind: str
    sequence: int
    busy: bool = False
    over: bool = False
    step: str = ""
    goal: str = ""
    verdict: str = ""
    why: str = ""

    @property
    def action(self) -> Do:
        """What to do next, if `step` is set."""
        if self.step == WRITE:
            released = self.goal in ("leave", FENCED)
            busy = not released and (self.goal == "need" or (self.busy and self.goal != "idle"))
            return Do(WRITE, self.generation, RELEASED if released else ACTIVE, self.sequence + 1, busy)
        return Do(self.step, self.generation)

    def need(self) -> Owner:
        """Something is to go into the engine (its start included). CLEAR: it may; FENCED: it must not."""
        if self.over:
            return self._replace(verdict=FENCED)
        return self._replace(step=LIST if self.busy else WRITE, goal="need", verdict="")

    def beat(self) -> Owner:
        """A second is over. CLEAR, ASKED (drain, then `leave`), or FENCED."""
        return self._replace(step=LIST, goal="beat", verdict="") if not self.over else self

    def idle(self) -> Owner:
        """Nothing is in the engine any more."""
        return self._replace(step=WRITE, goal="idle", verdict="") if self.busy and not self.over else self

    def leave(self) -> Owner:
        """The engine is gone and reaped: release."""
        return self._replace(step=WRITE, goal="leave", verdict="") if not self.over else self

    def advance(self, result: Any) -> Owner:
        """The machine after its action. `result`: LIST: Listing, None if it failed; WRITE, KILL: whether it worked."""
        if self.step == LIST:
            return self._looked(result)
        if self.step == KILL:
            if result:
                return self._replace(step=WRITE)
            return self._replace(step="", over=True, verdict=FENCED)  # it may still run: say nothing of release
        return self._wrote(bool(result))

    def _looked(self, listing: Listing | None) -> Owner:
        if listing is None:
            return self.fence("the folder of claims could not be read")
        mine = self.generation
        top = max(listing.generations, default=0)
        if top > mine:
            return self.fence(f"generation {top} was claimed after ours ({mine})")
        if mine not in listing.generations:
            return self.fence(f"our claim, generation {mine}, was removed")
        if any(generation == mine for generation, _ in listing.gone):
            return self.fence("it was taken over by hand")
        if self.goal == "need":
            return self._replace(step="", verdict=CLEAR)
        asked = self.kind == FOREIGN and mine in listing.asks
        return self._replace(step=WRITE, verdict=ASKED if asked else CLEAR)

    def fence(self, why: str) -> Owner:
        """Stop at once: the engine first."""
        return self._replace(step=KILL, goal=FENCED, why=why, verdict="")

    def _wrote(self, worked: bool) -> Owner:
        if self.goal == FENCED:
            return self._replace(
                step="", goal="", sequence=self.sequence + worked, over=True, busy=False, verdict=FENCED
            )
        if not worked:
            return self.fence("our claim could not be written")
        done = self._replace(sequence=self.sequence + 1)
        if self.goal == "need":
            return done._replace(step=LIST, busy=True)
        if self.goal == "leave":
            return done._replace(step="", goal="", over=True, busy=False, verdict=CLEAR)
        busy = self.busy and self.goal != "idle"
        return done._replace(step="", goal="", busy=busy, verdict=self.verdict or CLEAR)
