"""Who owns the palace where locks do not reach: leases, as two pure machines. No IO, no clock.

An *epoch* is a file name that is created once: O_EXCL has one winner on every share. The file holds one record, and
only its creator writes it, in place. A *node* is one kernel. Inside a node broker.lock elects one broker, so a node has
at most one live lease, and it knows that its earlier ones are dead.

    acquire.py  list, read what is open, judge; create the next epoch; settle; list and read again; own or refuse
    hold.py     before a call goes in: busy = 1, *then* look for a higher epoch, and only then dispatch (see is_certain)
                every second: look for a higher epoch and for handover requests, write the next sequence
                a higher epoch, or a write that failed: kill the engine, *then* release; never the other way round

Why two nodes never write at once. Names and records are visible at the latest D after they were made. Let g < h both be
owners. h created its name, waited S > 2 D, and then read g's record: released, proven dead, or silent with busy = 0.
In the last case g's busy = 1, if any, was written less than D before h looked, that is, more than D after h's name
appeared; so g, which looks for higher names after it wrote the flag, sees h and dispatches nothing. (Dekker's algorithm
with the settle time in place of sequential consistency.) Silence is not part of this argument: waiting for it spares a
live owner, but it proves nothing. An owner that is silent with busy = 1 may be paused inside a write: no other broker
takes over.

A node that finds nothing open below and sees names without delay (the host: it has the files) needs no settle time:
a later node finds its name, or fails to create the same one.

What the host need not believe. A guest that can write the folder can put any name there. But a foreign h > g owns only
after it read g's idle record twice with the same sequence, silence_s apart, the second time more than S after it
created its name. So g was not written for silence_s - D, and when it is written again, h's name is older than S - D.
The host knows how long it did not write, and it sees names at once: a higher epoch (or a person's word about its own)
that it sees although it never paused for `steady_s` has no owner behind it, whatever its record says. It is ignored;
what a mere candidate can't have written is removed. In the same way the host puts back its own name: whoever missed it
and created another one since the last look still settles, and will find it.

Which calls need a look. Once busy = 1 is written and a look was clear, nobody comes to own while the flag stays up: who
reads the record later finds it busy. That rests on the record's name being there, which a host's heartbeat sees every
second; so a host whose heartbeat goes on sends further calls without a look (`is_certain`).

Times are monotonic seconds of the reader; tests/model runs these very machines through all interleavings.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

VISIBILITY_DELAY_S = 1.5  # D: names and records are visible within this; measured at most 1.0 s (docs/leases.md)
# S, 3.5 s: how long a container waits between creating its epoch and opening the palace. Longer than 2 D: with
# exactly 2 D the model checker finds two writers.
SETTLE_S = 2 * VISIBILITY_DELAY_S + 0.5


# Brokers never come that far, with one epoch a second for thirty years: a higher number was made up.
MAX_EPOCH = 10**9 - 1


class NodeKind(StrEnum):
    """Where a broker runs: on the machine whose disk has the palace, or beyond a kernel boundary."""

    HOST = "host"
    FOREIGN = "foreign"


class LeaseState(StrEnum):
    """What a lease's record says; the last three are what a reader may find instead of a record."""

    ACQUIRING = "acquiring"
    ACTIVE = "active"
    RELEASED = "released"
    EMPTY = "empty"  # created, nothing written yet
    UNREADABLE = "unreadable"  # never whole
    MISSING = "missing"

    @property
    def is_final(self) -> bool:
        """Whether the creator of that lease will never write again."""
        return self in (LeaseState.RELEASED, LeaseState.MISSING)


class Verb(StrEnum):
    """What a machine wants done next."""

    LIST = "list"
    READ = "read"
    CREATE = "create"
    WRITE = "write"
    SLEEP = "sleep"
    REQUEST_HANDOVER = "request a handover"
    KILL = "kill the engine"
    DONE = "done"


class LeasePolicy(NamedTuple):
    """Seconds: how long silence lasts (T), the settle time (S), the pause between two looks, the heartbeat.

    tries: how often an acquirer begins again. steady_s: a host that writes at least so often was never silent for
    silence_s - D. repair_s: S - D, how soon after its last look a host can put back its own name.
    """

    silence_s: float = 5.0
    settle_s: float = SETTLE_S
    poll_s: float = 0.25
    heartbeat_s: float = 1.0
    tries: int = 8
    steady_s: float = 3.0
    repair_s: float = SETTLE_S - VISIBILITY_DELAY_S


class Listing(NamedTuple):
    """The names in the folder.

    Attributes:
        epochs: of the leases. gone: (epoch, sequence) that a person declared gone. requested: asked to hand over.
        strange: names that no broker made; they count for nothing. taken: the highest epoch among them.
    """

    epochs: tuple[int, ...] = ()
    gone: frozenset[tuple[int, int]] = frozenset()
    requested: frozenset[int] = frozenset()
    strange: tuple[str, ...] = ()
    taken: int = 0

    @property
    def top(self) -> int:
        """The highest epoch; 0 if there is none."""
        return max(self.epochs, default=0)


class ObservedLease(NamedTuple):
    """One lease as it was read; `dead`: its broker is dead by a fact of the reader's own kernel."""

    epoch: int
    state: LeaseState
    sequence: int = 0
    busy: bool = False
    kind: NodeKind = NodeKind.FOREIGN
    dead: bool = False

    def is_resolved(self, listing: Listing) -> bool:
        """Whether its broker will never write again."""
        return self.dead or self.state.is_final or (self.epoch, self.sequence) in listing.gone


class LeaseAction(NamedTuple):
    """One thing to do; which fields count depends on `verb`."""

    verb: Verb
    epoch: int = 0
    state: LeaseState = LeaseState.EMPTY
    sequence: int = 0
    busy: bool = False
    until: float = 0.0
