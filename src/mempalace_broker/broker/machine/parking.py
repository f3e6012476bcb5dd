"""Whether the running engine has the palace open. Pure: the clock is handed in, and the dispatcher sends what is due.

    OPEN --`park_s` without a call--> CLOSING --parked--> PARKED --a call waits--> OPENING --ready--> OPEN

A parked engine has closed every file of the palace and given up mempalace's own write lock, but keeps its modules and
its model: mempalace's hooks and its own commands work until the next call. That call waits, in its queue, until the
engine has the lock again; whoever holds it meanwhile is named to those who wait too long.

An engine that can't close a file is ended instead; the next call starts another. Such a start takes a second, so it
then happens after a longer pause.
"""

from __future__ import annotations

from enum import StrEnum

from ...protocol.text import printable

SLOW_PARK_S = 60.0  # the pause before an engine is ended for that
CLOSING_S = 15.0
_MOST_HOLDER = 200  # characters


class ParkState(StrEnum):
    """The states above; `broker/status` shows the values of all but OPEN."""

    OPEN = "open"
    CLOSING = "parking"
    PARKED = "parked"
    OPENING = "unparking"


class Parking:
    """The palace of one engine slot: open, or parked.

    Args:
        park_s: close the palace after this long without a call; 0 = never.
        open_s: how long opening may take once nobody else holds the lock; 0 = no limit.

    Attributes:
        since: when the state began. holder: who holds mempalace's write lock while we open, in words.
    """

    def __init__(self, park_s: float, open_s: float) -> None:
        self.state = ParkState.OPEN
        self.since = 0.0
        self.holder = ""
        self._park_s = park_s
        self._open_s = open_s
        self._used = 0.0

    def _enter(self, state: ParkState, now: float) -> None:
        self.state, self.since, self.holder = state, now, ""

    @property
    def between(self) -> bool:
        """Whether the engine opens or closes the palace at this moment."""
        return self.state in (ParkState.CLOSING, ParkState.OPENING)

    def used(self, now: float) -> None:
        """A call came or ended."""
        self._used = now

    def opened(self, now: float) -> None:
        """The palace is open: the engine has just started, or opened it again. Also where there is no engine."""
        self._used = now
        self._enter(ParkState.OPEN, now)

    def unused(self, now: float) -> bool:
        """Whether the palace is to be closed. Ask only while no call waits or runs."""
        return self.state is ParkState.OPEN and bool(self._park_s) and now >= self._used + self._park_s

    def close(self, now: float) -> None:
        """The engine was told to close the palace."""
        self._enter(ParkState.CLOSING, now)

    def closed(self, now: float) -> None:
        """It has."""
        self._enter(ParkState.PARKED, now)

    def failed(self) -> None:
        """It could not."""
        self._park_s = max(self._park_s, SLOW_PARK_S)

    def open(self, now: float) -> None:
        """The engine was told to open the palace."""
        self._enter(ParkState.OPENING, now)

    def waits_for(self, holder: object, now: float) -> None:
        """Somebody holds the lock; "": it is ours now."""
        if self.state is ParkState.OPENING:
            self.since, self.holder = now, printable(str(holder or ""), _MOST_HOLDER)

    def overdue(self, now: float) -> str:
        """Why the engine has to be ended, or ""."""
        deadline = self._step_deadline
        if deadline is None or now < deadline:
            return ""
        return f"the engine was still {self.state} after {now - self.since:.0f} s"

    @property
    def _step_deadline(self) -> float | None:
        if self.state is ParkState.CLOSING:
            return self.since + CLOSING_S
        if self.state is ParkState.OPENING and not self.holder and self._open_s:
            return self.since + self._open_s
        return None

    def next_deadline(self, *, idle: bool) -> float | None:
        """When `unused` or `overdue` change, or None. `idle`: no call waits or runs."""
        if self.state is ParkState.OPEN:
            return self._used + self._park_s if idle and self._park_s else None
        return self._step_deadline
