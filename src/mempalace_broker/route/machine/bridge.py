"""When the bridge of a container sets up, checks and probes its tunnel to the host. Pure; monotonic seconds.

    shim asks                    not up: set up. Checked a moment ago: serve. Else check first, then serve
    a set-up failed              refuse all with that failure, for a while that grows
    nobody asks, shims use it    probe it where nothing else would show that it froze
    no shim uses it              leave, after a while

A shim that holds its connection to the bridge is a user. However many ask at once, one set-up serves all.
"""

from __future__ import annotations

import re
from enum import Enum, StrEnum, auto


class TransportMode(StrEnum):
    """How the tunnel gets a connection to the broker, see route/bridge/transports."""

    FORWARD = "forward"  # one listening socket forwarded by ssh; opening a connection costs one round trip
    STDIO = "stdio"  # ssh host mempalace-broker dial-stdio per connection: needs only that command


class BridgeTask(Enum):
    """What the bridge does next."""

    REST = auto()  # wait
    SERVE = auto()  # hand out connections
    CHECK = auto()  # ask the broker something first
    SET_UP = auto()
    REFUSE = auto()  # repeat the last failure
    PROBE = auto()  # nobody asks: is the host frozen?
    LEAVE = auto()


FRESH_S = 1.0  # a tunnel that was checked a moment ago needs no check
PROBE_S = 10.0
LINGER_S = 5.0  # agents come and go; the next one should find the tunnel up
FIRST_HOLD_S = 0.5
MAX_HOLD_S = 8.0  # a person who fixed it should not wait long; sshd penalizes clients that ask too often

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./,@+-]+")
_MAX_SUN_PATH = 107


def usable_modes(path: str, last: TransportMode | None = None) -> list[TransportMode]:
    """Modes worth trying for the socket `path` of the host, best first; `last` worked before.

    A path that ssh would not take literally (`:`, `%`, `$`, quotes) can't be forwarded.
    """
    found = [TransportMode.STDIO]
    if _PLAIN_PATH.fullmatch(path) and len(path.encode("utf-8", "surrogateescape")) <= _MAX_SUN_PATH:
        found.insert(0, TransportMode.FORWARD)
    return sorted(found, key=lambda mode: mode is not last)


class BridgeState:
    """The bridge's state: who uses it, who waits, and whether the tunnel is up.

    Args:
        now: the time. linger: seconds without a user before it is time to leave.

    Attributes:
        users: connections of shims. again: whether one of the waiting shims had a connection that broke.
        up: whether the tunnel is open. probes: whether only a probe would show that the host froze.
    """

    def __init__(self, now: float, linger: float = LINGER_S) -> None:
        self.users = 0
        self.up = False
        self.probes = False
        self._linger = linger
        self._empty_since = now
        self._checked_at = now
        self._failures = 0
        self._hold_until = now
        self._waiting = 0
        self.again = False

    def joined(self) -> None:
        """A shim connected; no request yet."""
        self.users += 1

    def asked(self, *, again: bool) -> None:
        """A shim asks for a connection. `again`: the one it had broke, so no earlier check counts."""
        self._waiting += 1
        self.again = self.again or again

    def left(self, now: float, *, waiting: bool) -> None:
        """A shim is gone. `waiting`: it had no answer yet."""
        self.users -= 1
        self._waiting -= waiting
        self._empty_since = now

    def answered(self) -> None:
        """Every waiting shim has its answer."""
        self._waiting = 0
        self.again = False

    def checked(self, began: float) -> None:
        """The broker answered a request that was sent at `began` or later."""
        self._checked_at = began
        self.again = False

    def opened(self, began: float, *, probes: bool) -> None:
        """A set-up that started at `began` succeeded."""
        self.up, self.probes = True, probes
        self._failures = 0
        self.checked(began)

    def failed(self, now: float) -> None:
        """A set-up failed: for a while every shim gets the same answer."""
        self.up = False
        self._hold_until = now + min(MAX_HOLD_S, FIRST_HOLD_S * 2.0 ** min(self._failures, 10))
        self._failures += 1

    def lost(self) -> None:
        """The tunnel is gone; a shim that needs it will ask."""
        self.up = False

    def task(self, now: float) -> BridgeTask:
        """The task for now."""
        if self._waiting:
            if not self.up:
                return BridgeTask.REFUSE if now < self._hold_until else BridgeTask.SET_UP
            return BridgeTask.CHECK if self.again or now > self._checked_at + FRESH_S else BridgeTask.SERVE
        if not self.users:
            return BridgeTask.LEAVE if now >= self._empty_since + self._linger else BridgeTask.REST
        return BridgeTask.PROBE if self.up and self.probes and now >= self._checked_at + PROBE_S else BridgeTask.REST

    def pause(self, now: float) -> float:
        """Seconds until `task` may change without any event; infinite where it won't."""
        if self.task(now) != BridgeTask.REST:
            return 0.0
        if not self.users:
            return self._empty_since + self._linger - now
        if self.up and self.probes:
            return self._checked_at + PROBE_S - now
        return float("inf")
