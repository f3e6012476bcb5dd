"""Who may see the page: a link that works once opens it, and a cookie together with a key keeps it open.

The code of the link stands after the # of an address, which no browser sends to a server. The page's script sends it
once, and gets a cookie, which no script can read, and a key, which the script keeps. Both carry an HMAC, so the next
broker knows them, too. Browsers send a cookie to every port of a host, so a program that listens on another port of
127.0.0.1 may see it; the key stays with the page of this port. Neither is enough alone.

When the broker has left, another user may take the port while an open page goes on asking. So before the page sends its
key, the broker has to prove that it knows the key. A page that is loaded again gets that user's script, which can read
both. Where the system tells whose connection it is, they are of no use to other users' programs: see views.py.
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
    """A cookie and a key, which together open the page for VISIT_S."""

    cookie: str
    key: str


class PageAccess:
    """The codes and visits of one broker; times are seconds since 1970.

    Args:
        chance: gives 16 random bytes.

    Attributes:
        secret: the key of the HMACs; "" if nobody may see the page. A new one ends all visits.
    """

    def __init__(self, chance: Callable[[], bytes]) -> None:
        self.secret = ""
        self._chance = chance
        self._codes: dict[str, float] = {}

    def new_code(self, now: float) -> str:
        """Return the code for one link."""
        code = self._chance().hex()
        self._codes[code] = now + CODE_S
        if len(self._codes) > _MOST_CODES:
            del self._codes[next(iter(self._codes))]
        return code

    def redeem(self, code: str, now: float) -> Visit | None:
        """Return the visit that a code opens, once; None if the code is unknown, used or too old."""
        until = self._codes.pop(code, 0.0)
        if now >= until or not self.secret:
            return None
        cookie = f"{int(now) + VISIT_S}.{self._chance().hex()}"
        cookie = f"{cookie}.{self._mac('cookie', cookie)}"
        return Visit(cookie, self._mac("key", cookie))

    def permits(self, cookie: str, key: str, now: float) -> bool:
        """Return whether both are ours, belong together and have not expired."""
        paired = hmac.compare_digest(key.encode(), self._mac("key", cookie[:_MAX_COOKIE]).encode())
        return self._holds(cookie, now) and paired

    def proof(self, cookie: str, challenge: str, now: float) -> str:
        """Return a proof that we know the key to a cookie; "" for a cookie that is not ours. May be called repeatedly.

        Args:
            challenge: made up by the page, and our port, so that a program on another port can't pass it on to us.
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
