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

# the lock, as far as we know
LOCK_FREE = "free"  # not tried yet, or seen free: we do not hold it
LOCK_OBTAINED = "obtained"  # we hold it now
LOCK_HELD = "held"  # somebody else does
LOCKS = (LOCK_FREE, LOCK_OBTAINED, LOCK_HELD)

# the record
RECORD_ABSENT = "absent"
RECORD_BAD = "bad"
RECORD_MINE = "mine"  # written on this kernel, so dialling and locks mean something
RECORD_FOREIGN = "foreign"  # written on another kernel, which may well have a living owner
RECORDS = (RECORD_ABSENT, RECORD_BAD, RECORD_MINE, RECORD_FOREIGN)

# connect()
CONNECT_OK = "ok"
CONNECT_REFUSED = "refused"  # a socket without a listener
CONNECT_ENOENT = "enoent"  # no such name
CONNECT_EAGAIN = "eagain"  # a listener with a full backlog: alive, or stopped
CONNECT_TIMEOUT = "timeout"  # nothing learned in time
CONNECT_DENIED = "denied"  # it is not for us: another user's
CONNECTS = (CONNECT_OK, CONNECT_EAGAIN, CONNECT_TIMEOUT, CONNECT_DENIED, CONNECT_REFUSED, CONNECT_ENOENT)

# what to do
CONNECT = "connect"  # an owner accepts: this is the broker's connection
WAIT = "wait"  # somebody owns or starts it: let go of any lock, come back later
TAKE_LOCK = "take_lock"  # try the lock without blocking, then look again
START = "start"  # start or bind; only a lock in our hand permits it
AVOID = "avoid"  # the owner may live on another kernel: say so, touch nothing
FAIL = "fail"  # no election is possible here: say so, touch nothing
ACTIONS = (CONNECT, WAIT, TAKE_LOCK, START, AVOID, FAIL)

_OWNED = {CONNECT_OK: CONNECT, CONNECT_EAGAIN: WAIT, CONNECT_TIMEOUT: WAIT, CONNECT_DENIED: FAIL}
_NOBODY = {LOCK_FREE: TAKE_LOCK, LOCK_OBTAINED: START, LOCK_HELD: WAIT}


def decide(*, lock: str, record: str, connect: str) -> str:
    """The action for one observation; arguments are the constants above.

    Raises:
        KeyError: an argument is none of them.
    """
    if connect not in (CONNECT_REFUSED, CONNECT_ENOENT):
        return _OWNED[connect]
    return AVOID if record == RECORD_FOREIGN else _NOBODY[lock]


def strongest(outcomes: list[str]) -> str:
    """Several endpoints dialled, one outcome: any sign of an owner outweighs every sign of none."""
    return min(outcomes, key=CONNECTS.index, default=CONNECT_ENOENT)
