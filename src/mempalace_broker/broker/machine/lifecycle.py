"""When the broker leaves: idle for too long, or told to. SERVING -> DRAINING -> OVER, never back."""

from __future__ import annotations

from enum import StrEnum


class BrokerState(StrEnum):
    """As `broker/status` shows it. DRAINING: nothing more is accepted, and running calls may finish."""

    SERVING = "serving"
    DRAINING = "draining"
    OVER = "over"


class Lifecycle:
    """The broker's own state and its two timers.

    Args:
        idle_s: leave after this long without sessions and work; 0 = never.
        drain_s: how long running calls may go on once the broker is told to leave.
    """

    def __init__(self, *, idle_s: float, drain_s: float, now: float) -> None:
        self.state = BrokerState.SERVING
        self.reason = ""
        self._idle_s = idle_s
        self._drain_s = drain_s
        self._idle_since: float | None = now
        self._wanted_until = 0.0
        self._rested = False  # the engine was ended for that
        self._drain_until = 0.0

    @property
    def idle(self) -> bool:
        """Whether the idle timer runs."""
        return self._idle_since is not None

    def rest(self, now: float) -> None:
        """There are no sessions and no work."""
        self._idle_since = now

    def work(self) -> None:
        """There is a session, or work."""
        self._idle_since = None
        self._rested = False

    def wanted(self, until: float) -> None:
        """There are clients that hold no connection and can't start a broker: stay so long for them."""
        self._wanted_until = until

    def engine_idle(self, now: float) -> bool:
        """Whether the engine may end, though the broker stays: once each time."""
        at = self._rest_deadline
        self._rested = self._rested or (at is not None and now >= at)
        return at is not None and self._rested

    def idle_too_long(self, now: float) -> str:
        """The reason to leave, or ""."""
        deadline = self._idle_deadline
        return f"idle for {self._idle_s:g} s" if deadline is not None and now >= deadline else ""

    def drain(self, now: float, reason: str) -> None:
        """Begin to leave."""
        self.state = BrokerState.DRAINING
        self.reason = reason
        self._drain_until = now + self._drain_s

    def drained_too_long(self, now: float) -> bool:
        """Whether running calls have had their time."""
        return self.state == BrokerState.DRAINING and now >= self._drain_until

    @property
    def leaving_text(self) -> str:
        """What is said about a call that is not executed for that."""
        return f"not executed: the broker is leaving ({self.reason}). Send it again on a new connection."

    @property
    def engine_rests(self) -> bool:
        """Whether it was ended for that."""
        return self._rested

    @property
    def _rest_deadline(self) -> float | None:
        idle = self._idle_deadline
        if idle is None or self._rested or self._idle_since is None or idle <= self._idle_since + self._idle_s:
            return None
        return self._idle_since + self._idle_s

    @property
    def _idle_deadline(self) -> float | None:
        if self.state != BrokerState.SERVING or not self._idle_s or self._idle_since is None:
            return None
        return max(self._idle_since + self._idle_s, self._wanted_until)

    def next_deadline(self) -> float | None:
        """When one of the timers ends, or None."""
        if self.state == BrokerState.DRAINING:
            return self._drain_until
        return self._rest_deadline or self._idle_deadline
