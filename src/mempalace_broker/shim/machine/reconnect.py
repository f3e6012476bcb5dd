"""The shim's patience with brokers: when to try again, since when it is hopeless, and what to say meanwhile.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import NOT_EXECUTED
from .pending_requests import NO_DEADLINE

SHORT_S = 5.0  # a connection that lived no longer counts as a failure of its own
FIRST_PAUSE_S = 0.02
FIRST_FAILURE_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0


class ReconnectPolicy:
    """How the attempts to reach a broker went. Times are monotonic seconds.

    Attributes:
        why: what is wrong, for people; "" while nothing is. code: the JSON-RPC code that goes with it.
        hopeless_since: when a broker could first not be had at all, NO_DEADLINE while one may.
        retry_at: no attempt before this moment.
        notices: lines for stderr, one for each change of state; the caller takes them.
    """

    __slots__ = ("_failures", "_short", "_up_at", "_was_up", "code", "hopeless_since", "notices", "retry_at", "why")

    def __init__(self) -> None:
        self.why = ""
        self.code = NOT_EXECUTED
        self.hopeless_since = NO_DEADLINE
        self.retry_at = 0.0
        self.notices: list[str] = []
        self._failures = self._short = 0
        self._up_at = 0.0
        self._was_up = False

    @property
    def tried(self) -> bool:
        """Whether there was an attempt at all."""
        return self._was_up or self._failures > 0 or self._short > 0

    def hopeless(self, now: float) -> bool:
        """Whether a request must be refused right now: no broker can be had, and it is too early to try again."""
        return self.hopeless_since != NO_DEADLINE and now < self.retry_at

    def failed(self, code: int, why: str, now: float) -> None:
        """An attempt ended without a broker, or with one that refuses us."""
        self._complain(code, why)
        self._failures += 1
        self.hopeless_since = min(self.hopeless_since, now)
        self.retry_at = now + min(MAX_PAUSE_S, FIRST_FAILURE_PAUSE_S * 2 ** min(self._failures - 1, 9))

    def opened(self, now: float) -> None:
        """A connection is open; it is worth little before hello was answered."""
        self._up_at = now

    def welcomed(self) -> None:
        """A broker accepted us."""
        if self.why or self._was_up:
            self.notices.append("connected to the broker")
        self.why, self.code = "", NOT_EXECUTED
        self.hopeless_since = NO_DEADLINE
        self._failures = 0
        self._was_up = True

    def lost(self, reason: str, now: float, *, welcomed: bool) -> None:
        """The connection is gone. The first time try again at once; where it happens again and again, pause."""
        self._short = self._short + 1 if now - self._up_at < SHORT_S else 0
        if self._short > 1:
            self.retry_at = max(self.retry_at, now + min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._short, 9)))
        if welcomed:
            self.notices.append(f"connection to the broker lost: {reason}")
        elif self.hopeless_since == NO_DEADLINE:
            self._complain(NOT_EXECUTED, f"the broker gave up the connection at once: {reason}.")

    def _complain(self, code: int, why: str) -> None:
        if why != self.why:
            self.notices.append(why)
        self.code, self.why = code, why
