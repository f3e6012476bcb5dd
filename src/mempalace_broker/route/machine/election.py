"""Who may start a broker, as a table: an observation -> an action.

The theory. connect() shows *ownership*: the kernel refuses (or knows no such name) if and only if nobody on
this kernel listens there, and it accepts on behalf of a process that is stopped, swamped or stuck. Only a
*reply* shows health. So a silent owner is an owner: a client waits for it and never replaces it. A kernel's lock
is the only proof that we are alone; so nothing but "lock obtained" leads to START, which stands for spawning
a broker (a client, holding start.lock) and for unlinking, binding and serving (a broker, holding
broker.lock). A record is a hint where to dial, and the sign of another kernel, where neither connect() nor
locks prove anything. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations


class LockSeen(str):
    """The lock, as far as we know."""

    __slots__ = ()


class RecordSeen(str):
    """The record."""

    __slots__ = ()


class ConnectSeen(str):
    """What connect() said."""

    __slots__ = ()


class Action(str):
    """What to do."""

    __slots__ = ()


LOCK_FREE = LockSeen("free")  # not tried yet, or seen free: we do not hold it
LOCK_OBTAINED = LockSeen("obtained")  # we hold it now
LOCK_HELD = LockSeen("held")  # somebody else does
LOCKS = (LOCK_FREE, LOCK_OBTAINED, LOCK_HELD)

RECORD_ABSENT = RecordSeen("absent")
RECORD_BAD = RecordSeen("bad")
RECORD_MINE = RecordSeen("mine")  # written on this kernel, so dialling and locks mean something
RECORD_FOREIGN = RecordSeen("foreign")  # written on another kernel, which may well have a living owner
RECORDS = (RECORD_ABSENT, RECORD_BAD, RECORD_MINE, RECORD_FOREIGN)

CONNECT_OK = ConnectSeen("ok")
CONNECT_REFUSED = ConnectSeen("refused")  # a socket without a listener
CONNECT_ENOENT = ConnectSeen("enoent")  # no such name
CONNECT_EAGAIN = ConnectSeen("eagain")  # a listener with a full backlog: alive, or stopped
CONNECT_TIMEOUT = ConnectSeen("timeout")  # nothing learned in time
CONNECT_DENIED = ConnectSeen("denied")  # it is not for us: another user's
CONNECTS = (CONNECT_OK, CONNECT_EAGAIN, CONNECT_TIMEOUT, CONNECT_DENIED, CONNECT_REFUSED, CONNECT_ENOENT)

CONNECT = Action("connect")  # an owner accepts: this is the broker's connection
WAIT = Action("wait")  # somebody owns or starts it: let go of any lock, come back later
TAKE_LOCK = Action("take_lock")  # try the lock without blocking, then look again
START = Action("start")  # start or bind; only a lock in our hand permits it
AVOID = Action("avoid")  # the owner may live on another kernel: say so, touch nothing
FAIL = Action("fail")  # no election is possible here: say so, touch nothing
ACTIONS = (CONNECT, WAIT, TAKE_LOCK, START, AVOID, FAIL)

_OWNED = {CONNECT_OK: CONNECT, CONNECT_EAGAIN: WAIT, CONNECT_TIMEOUT: WAIT, CONNECT_DENIED: FAIL}
_NOBODY = {LOCK_FREE: TAKE_LOCK, LOCK_OBTAINED: START, LOCK_HELD: WAIT}


def decide(*, lock: LockSeen, record: RecordSeen, connect: ConnectSeen) -> Action:
    """The action for one observation."""
    if connect not in (CONNECT_REFUSED, CONNECT_ENOENT):
        return _OWNED[connect]
    return AVOID if record == RECORD_FOREIGN else _NOBODY[lock]


def strongest(outcomes: list[ConnectSeen]) -> ConnectSeen:
    """Several endpoints dialled, one outcome: any sign of an owner outweighs every sign of none."""
    return min(outcomes, key=CONNECTS.index, default=CONNECT_ENOENT)
