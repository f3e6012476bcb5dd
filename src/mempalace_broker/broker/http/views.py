"""Answers requests for the page, for its data, and for the metrics.

All of it is read-only. Only two requests reach the memory: how many drawers each room has, and a search; they take
their turns like the calls of an agent. Everything else comes from the status that `status --json` prints.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ...protocol.jsonrpc import TOOLS_CALL
from .machine.gate import COOKIE, PAGE, Refusal, Route
from .machine.page_access import VISIT_S
from .machine.sessions import HttpSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..tasks import Tasks
    from .client import Client
    from .endpoint import McpEndpoint
    from .machine.gate import Admitted
    from .machine.page_access import PageAccess

_FOLDER = os.path.join(os.path.dirname(__file__), "page")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]
_NOT_THEIRS = Refusal(403, "the page is for programs of the user who runs the broker")
_MAX_QUERY = 250  # characters, mempalace's own limit
_RESULTS = 10


class Views:
    """The views of one broker.

    Args:
        calls: takes calls to the memory; all of them are of one client. status: returns the broker's status.
        health: runs `doctor`; returns JSON. now: seconds since 1970.
    """

    def __init__(
        self,
        calls: McpEndpoint,
        access: PageAccess,
        *,
        status: Callable[[], dict[str, Any]],
        health: Callable[[], Awaitable[bytes]],
        tasks: Tasks,
        now: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._access = access
        self._status = status
        self._health = health
        self._tasks = tasks
        self._now = now
        self._session = HttpSession("page", "page")

    def handle(self, client: Client, call: Admitted, port: int) -> None:
        """Answer an admitted request."""
        if call.route is Route.METRICS:
            self._later(client, self._metrics())
        elif call.route is Route.PAGE_FILE:
            name, kind = _FILES[call.detail]
            with open(os.path.join(_FOLDER, name), "rb") as file:
                client.respond(200, file.read(), *_HEADERS, kind=kind)
        elif call.route is Route.PAGE_LOGIN:
            self._let_in(client, call.detail, port)
        elif client.peer.is_of_another_user:  # the routes above are for anybody: Prometheus runs as another user
            client.refuse(_NOT_THEIRS)
        elif call.route is Route.PAGE_PROOF:
            client.respond(200, call.detail.encode(), *_HEADERS, kind="text/plain")
        else:
            self._page(client, call.detail)

    def _let_in(self, client: Client, code: str, port: int) -> None:
        visit = self._access.redeem(code, self._now())
        if visit is None:
            client.refuse(Refusal(401, "this link was already used, or has expired: mempalace-broker open"))
            return
        if client.peer.is_of_another_user:  # asked only now: a wrong code must cost little
            client.refuse(_NOT_THEIRS)
            return
        cookie = f"{COOKIE}-{port}={visit.cookie}; Path={PAGE}; Max-Age={VISIT_S}; HttpOnly; SameSite=Strict"
        client.respond(200, json.dumps({"key": visit.key}).encode(), ("Set-Cookie", cookie), *_HEADERS)

    def _page(self, client: Client, target: str) -> None:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "status":
            client.respond(200, json.dumps(self._status()).encode(), *_HEADERS)
        elif parts.path == "health":
            self._later(client, self._doctor())
        elif parts.path == "rooms":
            self._ask(client, "mempalace_get_taxonomy", {})
        elif parts.path == "search" and query.get("query", "").strip():
            where = {name: query[name] for name in ("wing", "room") if query.get(name)}
            found = {"query": query["query"].strip()[:_MAX_QUERY], "limit": _RESULTS, **where}
            self._ask(client, "mempalace_search", found)
        else:
            client.refuse(Refusal(404, "the page has nothing of that name"))

    def _ask(self, client: Client, tool: str, arguments: dict[str, Any]) -> None:
        params = {"name": tool, "arguments": arguments}
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": TOOLS_CALL, "params": params})
        self._calls.ask(client, self._session, line.encode(), list(_HEADERS))

    # -- what takes a while

    def _later(self, client: Client, work: Coroutine[Any, Any, tuple[bytes, str]]) -> None:
        self._tasks.start("view", _Later(client).answer(work))

    async def _doctor(self) -> tuple[bytes, str]:
        return await self._health(), "application/json"

    async def _metrics(self) -> tuple[bytes, str]:
        return await asyncio.to_thread(_exposition, self._status())


def _exposition(status: dict[str, Any]) -> tuple[bytes, str]:
    from .metrics import exposition  # late: its library costs 30 ms and 5 MB, which only a scraped broker should pay

    return exposition(status)


class _Later:
    """An answer that a connection waits for."""

    def __init__(self, client: Client) -> None:
        self._client: Client | None = client
        client.reply = self

    async def answer(self, work: Coroutine[Any, Any, tuple[bytes, str]]) -> None:
        """Await `work` and send its result."""
        try:
            body, kind = await work
        except Exception:
            if (client := self._taken()) is not None:
                client.refuse(Refusal(500, "the request failed: mempalace-broker logs"))
            raise
        if (client := self._taken()) is not None:
            client.respond(200, body, *_HEADERS, kind=kind)

    def _taken(self) -> Client | None:
        client, self._client = self._client, None
        if client is not None:
            client.reply = None
        return client

    def lost(self) -> None:
        """The connection broke."""
        self._client = None
