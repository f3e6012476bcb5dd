"""Who may see the page: a link that works once opens it, and a cookie together with a key keeps it open.

The code of the link stands behind the # of an address, which no browser sends to a server. The page's script shows it
once, and gets two things that prove themselves by an HMAC, so that the next broker knows them too: a cookie, which no
script can read, and a key, which the script keeps. Browsers send a cookie to every port of a host, so whoever listens
on another port of 127.0.0.1 may get to see it; the key stays with the page of this port. Neither is enough alone.
Another user may take the port once the broker has left, and an open page goes on asking: so before the page shows its
key, it has the broker prove that it knows the key.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

CODE_S = 60  # for the browser to start
VISIT_S = 24 * 3600
_MOST_CODES = 16
_MAX_COOKIE = 256


class Visit(NamedTuple):
    """What opens the page for VISIT_S: `cookie` and `key`."""

    cookie: str
    key: str


class PageAccess:
    """The codes and visits of one broker; times are seconds since 1970.

    Args:
        chance: gives 16 random bytes.

    Attributes:
        secret: what proves cookies and keys; "" where nobody may come. A new one ends all visits.
    """

    def __init__(self, chance: Callable[[], bytes]) -> None:
        self.secret = ""
        self._chance = chance
        self._codes: dict[str, float] = {}

    def new_code(self, now: float) -> str:
        """A code for one link."""
        code = self._chance().hex()
        self._codes[code] = now + CODE_S
        if len(self._codes) > _MOST_CODES:
            del self._codes[next(iter(self._codes))]
        return code

    def redeem(self, code: str, now: float) -> Visit | None:
        """The visit that a code opens, once; None where it is unknown, used or too old."""
        until = self._codes.pop(code, 0.0)
        if now >= until or not self.secret:
            return None
        cookie = f"{int(now) + VISIT_S}.{self._chance().hex()}"
        cookie = f"{cookie}.{self._mac('cookie', cookie)}"
        return Visit(cookie, self._mac("key", cookie))

    def permits(self, cookie: str, key: str, now: float) -> bool:
        """Whether they belong together, are ours and still hold."""
        paired = hmac.compare_digest(key.encode(), self._mac("key", cookie[:_MAX_COOKIE]).encode())
        return self._holds(cookie, now) and paired

    def proof(self, cookie: str, challenge: str, now: float) -> str:
        """What proves that we know the key to a cookie, as often as it is asked for; "" for a cookie that is not ours.

        Args:
            challenge: what the page made up, with our port, or whoever listens on another one could pass it on to us.
        """
        if not self._holds(cookie, now):
            return ""
        return hmac.digest(self._mac("key", cookie).encode(), challenge.encode(), "sha256").hex()

    def _holds(self, cookie: str, now: float) -> bool:
        if not self.secret or len(cookie) > _MAX_COOKIE:
            return False
        body, _, mac = cookie.rpartition(".")
        genuine = hmac.compare_digest(mac.encode(), self._mac("cookie", body).encode())
        until = body.partition(".")[0]
        return genuine and until.isdecimal() and now < int(until)

    def _mac(self, what: str, text: str) -> str:
        return hmac.digest(self.secret.encode(), f"page {what} {text}".encode(), "sha256").hex()
