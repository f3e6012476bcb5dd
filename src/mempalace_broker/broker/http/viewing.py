"""Access to the page and the metrics: links, tokens, visits. The views are imported at the first request for one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ...protocol.jsonrpc import result_line
from .machine.gate import ViewAccess
from .machine.hub_record import ADDRESS
from .machine.page_access import CODE_S, PageAccess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...system.clock import Clock
    from ..tasks import Tasks
    from .client import Client
    from .endpoint import McpEndpoint
    from .machine.gate import Admitted
    from .token import HttpTokens
    from .views import Views

_OFF = "the setting http is off, or the broker can't listen for HTTP; `status` says why"


class Viewing:
    """The views of one listener.

    Args:
        status: returns the broker's status. health: runs `doctor`.
    """

    def __init__(
        self,
        *,
        status: Callable[[], dict[str, Any]],
        health: Callable[[], Awaitable[bytes]],
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._status = status
        self._health = health
        self._clock = clock
        self._tasks = tasks
        self._metrics = ""
        self._page = PageAccess(lambda: os.urandom(16))
        self._views: Views | None = None

    def read(self, tokens: HttpTokens) -> None:
        """Take over the current tokens."""
        self._metrics, self._page.secret = tokens.metrics, tokens.own

    @property
    def access(self) -> ViewAccess:
        """The credentials that are valid now."""
        return ViewAccess(self._metrics, self._page, self._clock.wall())

    def link(self, id_: Any, port: int) -> bytes:
        """Return the answer to `broker/open`: a `url` that opens the page once, or why there is none.

        Args:
            port: of the listener; 0 if there is none.
        """
        if not port or not self._page.secret:
            return result_line(id_, {"url": None, "why": _OFF})
        url = f"http://{ADDRESS}:{port}/#{self._page.new_code(self._clock.wall())}"
        return result_line(id_, {"url": url, "expires_s": CODE_S})

    def handle(self, client: Client, call: Admitted, endpoint: McpEndpoint, port: int) -> None:
        """Answer an admitted request. `endpoint`: takes calls to the memory."""
        if self._views is None:
            from .views import Views

            self._views = Views(
                endpoint,
                self._page,
                status=self._status,
                health=self._health,
                tasks=self._tasks,
                now=self._clock.wall,
            )
        self._views.handle(client, call, port)
