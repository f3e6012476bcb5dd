"""When the shim tries to reach a broker again, and what it says meanwhile.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import NOT_EXECUTED
from .pending_requests import NO_DEADLINE

SHORT_S = 5.0  # a connection that lived no longer counts as a failure of its own
FIRST_PAUSE_S = 0.02
FIRST_FAILURE_PAUSE_S = 0.5
MAX_PAUSE_S = 2.0  # nothing is tried unless a request waits: this bounds how often
_MAX_FAULT = 300  # characters of what Python says


def fault_text(exc: Exception) -> str:
    """What went wrong in this very program, in words that can be shown as they are: no code is loaded for them."""
    words = str(exc) if str(exc).isprintable() else ascii(str(exc))
    if isinstance(exc, ImportError):
        return (
            f"mp-shim can't load its own code any more ({words[:_MAX_FAULT]}): mempalace-broker, or its Python, was "
            "moved, removed or upgraded. Hint: start this session again; if that does not help, install it again."
        )
    if isinstance(exc, MemoryError):
        return "mp-shim does not have enough memory. Hint: end what uses it up, then try again."
    told = f"{type(exc).__name__}: {words}"[:_MAX_FAULT]
    return f"mp-shim failed at something unexpected ({told}). Hint: try again; `mempalace-broker doctor`."


class ReconnectPolicy:
    """Learns how the attempts to reach a broker went. Times are monotonic seconds.

    Attributes:
        why: the problem in words, "" if there is none. code: the JSON-RPC error code that goes with it.
        hopeless_since: when the first of the latest attempts failed, NO_DEADLINE if none has.
        retry_at: when the next attempt may begin.
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
        """Whether any attempt has been made."""
        return self._was_up or self._failures > 0 or self._short > 0

    def hopeless(self, now: float) -> bool:
        """Whether requests fail at once: no broker could be reached, and it is too early to try again."""
        return self.hopeless_since != NO_DEADLINE and now < self.retry_at

    def failed(self, code: int, why: str, now: float) -> None:
        """An attempt ended without a broker, or with one that refused us."""
        self._complain(code, why)
        self._failures += 1
        self.hopeless_since = min(self.hopeless_since, now)
        self.retry_at = now + min(MAX_PAUSE_S, FIRST_FAILURE_PAUSE_S * 2 ** min(self._failures - 1, 9))

    def opened(self, now: float) -> None:
        """A connection is open; hello is not answered yet."""
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
        """The connection is gone. After the first loss the shim tries again at once, after repeated ones it pauses."""
        self._short = self._short + 1 if now - self._up_at < SHORT_S else 0
        if self._short > 1:
            self.retry_at = max(self.retry_at, now + min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._short, 9)))
        if welcomed:
            self.notices.append(f"connection to the broker lost: {reason}")
        elif self.hopeless_since == NO_DEADLINE:
            self._complain(NOT_EXECUTED, f"the broker closed the connection at once: {reason}.")

    def _complain(self, code: int, why: str) -> None:
        if why != self.why:
            self.notices.append(why)
        self.code, self.why = code, why
