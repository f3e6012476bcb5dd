"""An HTTP client with bounded answers, and with tokens that reach only the host they are for.

It uses httpx because urllib keeps the Authorization header on redirects, and can't be cancelled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from ..errors import ConfigError
from .address import is_loopback
from .retry import LookupFailed

LARGEST = 1 << 20  # bytes; expected answers have a few thousand
_REDIRECTS = 3
_SECRET = re.compile(r"[\x21-\x7e]+")


class Reply(NamedTuple):
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Web:
    """An HTTP client, and an asynchronous context manager."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(10.0),
            headers={"User-Agent": "pi-devbox", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Web:
        """Itself."""
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, method: str, url: str, *, accept: str = "*/*", authorization: str = "") -> Reply:
        """Send one request and follow redirects. Raise LookupFailed if there is no answer, or too much of it."""
        for _ in range(_REDIRECTS + 1):
            reply = await self._send(method, url, accept, authorization)
            if reply.status not in {301, 302, 303, 307, 308}:
                return reply
            url = next_hop(url, reply.headers.get("location", ""))
            authorization = ""  # the token is not for the redirect's target
        raise LookupFailed(f"more than {_REDIRECTS} redirects")

    async def _send(self, method: str, url: str, accept: str, authorization: str) -> Reply:
        headers = {"Accept": accept}
        if authorization:
            if not may_carry_secret(url):
                raise LookupFailed("a token is sent over https only")
            headers["Authorization"] = authorization
        try:
            async with self._client.stream(method, url, headers=headers) as answer:
                body = b""
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > LARGEST:
                        raise LookupFailed(f"an answer of more than {LARGEST >> 20} MiB")
                return Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, body)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise LookupFailed(f"{type(exc).__name__}: {exc}".rstrip(": "), transient=True) from exc


def may_carry_secret(url: str) -> bool:
    """Whether `url` is https, or does not leave the machine."""
    parsed = httpx.URL(url)
    return parsed.scheme == "https" or is_loopback(parsed.host)


def secret(env: Mapping[str, str], variable: str) -> str:
    """Return the secret in an environment variable, or "". A ConfigError for a malformed one does not show it."""
    value = env.get(variable, "").strip()
    if value and not _SECRET.fullmatch(value):
        raise ConfigError(f"${variable} contains characters that no token has.", hint="set it again, on one line")
    return value


def next_hop(url: str, location: str) -> str:
    """Return the target of a redirect of `url`. Raise LookupFailed for one that is not followed."""
    try:
        target = httpx.URL(url).join(location)
    except httpx.InvalidURL as exc:
        raise LookupFailed("a redirect to nowhere") from exc
    downgraded = httpx.URL(url).scheme == "https" and target.scheme != "https"
    if not location or target.scheme not in {"https", "http"} or downgraded:
        raise LookupFailed("a redirect to something that is not an https address")
    return str(target.copy_with(userinfo=b""))
