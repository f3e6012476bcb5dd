"""Decide whether and when to retry: one policy for APIs, registries and git. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class LookupFailed(Exception):
    """No usable answer.

    Attributes:
        reason: for people; never contains a token. transient: a retry may succeed.
        retry_after: seconds that the server asked for, or None.
    """

    def __init__(self, reason: str, *, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.retry_after = retry_after


@dataclass(frozen=True)
class Policy:
    """The bounds of retrying; times in seconds.

    Attributes:
        attempts: at one question. first: wait after the first failure; it doubles each time.
        longest: maximal wait; a server that demands a longer one is not asked again.
        each: limit of one attempt. total: limit of all attempts for one companion or tag.
    """

    attempts: int = 4
    first: float = 1.0
    longest: float = 20.0
    each: float = 15.0
    total: float = 60.0


def wait_before(attempt: int, failure: LookupFailed, policy: Policy, chance: float) -> float | None:
    """Return the seconds to wait after failed attempt number `attempt` (from 1), or None to give up.

    `chance` in [0, 1) spreads the waits of several clients over the upper half of the backoff. A wait that the server
    demands is never cut short.
    """
    if not failure.transient or attempt >= policy.attempts:
        return None
    backoff = min(policy.longest, policy.first * 2.0 ** (attempt - 1)) * (0.5 + chance / 2)
    if failure.retry_after is None:
        return backoff
    if failure.retry_after > policy.longest:
        return None
    return max(backoff, failure.retry_after)


def refused(status: int, headers: Mapping[str, str], now: float) -> LookupFailed:
    """Turn an unsuccessful answer into a LookupFailed. Names in `headers` are in lower case; `now` is UNIX time."""
    limited = status == 429 or (status == 403 and ("retry-after" in headers or _spent(headers)))
    asked = _retry_after(headers, now)
    reason = f"HTTP {status}"
    if limited:
        reason += ", rate limit" + (f" for another {asked:.0f} s" if asked is not None else "")
    return LookupFailed(reason, transient=limited or status in _TRANSIENT, retry_after=asked)


def _spent(headers: Mapping[str, str]) -> bool:
    return headers.get("x-ratelimit-remaining", "").strip() == "0"


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until the server allows a retry: RFC 9110 section 10.2.3, and GitHub's own header."""
    text = headers.get("retry-after", "").strip()
    if text:
        until = now + int(text) if _is_number(text) else _http_date(text)
    elif _spent(headers) and _is_number(reset := headers.get("x-ratelimit-reset", "").strip()):
        until = float(int(reset))
    else:
        return None
    return None if until is None else max(0.0, until - now)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _http_date(text: str) -> float | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # its parser raises any of these on garbage
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
