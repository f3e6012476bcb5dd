"""The broker's listener for HTTP: on 127.0.0.1 alone, with a token that only the user can read.

What reads HTTP is imported when the first client connects: a broker that nobody asks over HTTP pays for a bound socket.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..tcp.address import Unavailable
from ..tcp.port import bind_tcp, candidate_ports
from .machine.head import MCP, judge
from .machine.modern import VERSION
from .token import HttpTokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...settings import BrokerSettings
    from ...system.clock import Clock
    from ...system.paths import StateFiles
    from ..runner import ProtocolRunner
    from .connection import HttpConnection
    from .endpoint import McpEndpoint
    from .machine.head import Admitted, Head, Refusal

ADDRESS = "127.0.0.1"
MOST = 256  # connections
MOST_HELD = 128 << 20  # bytes of all bodies that are on their way
RETRY_S = 30.0
SWEEP_S = 2.0
BACKLOG = 512


class HttpListener:
    """One listener; does nothing where the setting `http` is off.

    Args:
        number: gives each client its number.

    Attributes:
        port: 0 while it does not listen. stall_s: a client that reads nothing for so long is dropped.
        endpoint: of the requests; made with the first connection.
    """

    endpoint: McpEndpoint

    def __init__(
        self,
        runner: ProtocolRunner,
        *,
        settings: BrokerSettings,
        files: StateFiles,
        clock: Clock,
        number: Callable[[], int],
    ) -> None:
        self.port = 0
        self.stall_s = runner.stall_s
        self.endpoint_made = False
        self._runner = runner
        self._on = settings.http
        self._ports = candidate_ports(settings.http_port, 0, f"{files.palace}#http")
        self._clock = clock
        self._number = number
        self._private = files.private
        self._tokens = HttpTokens(files.private)
        self._server: asyncio.Server | None = None
        self._connections: dict[HttpConnection, None] = {}
        self._sweeping = False
        self._warning: dict[str, str] | None = None
        self._look_at = 0.0
        self._refused: dict[int, int] = {}

    @property
    def url(self) -> str:
        """Where MCP is, "" while it does not listen."""
        return f"http://{ADDRESS}:{self.port}{MCP}" if self.port else ""

    async def check(self) -> bool:
        """Listen if we should and don't, and read the token again; whether `url` changed. Call it every few seconds."""
        if not self._on or (not self.port and self._private.problem()):  # of that, others warn
            return False
        before = self.port
        try:
            self._tokens.read()
            if not self.port and self._clock.monotonic() >= self._look_at:
                self._look_at = self._clock.monotonic() + RETRY_S
                await self._listen()
        except (OSError, Unavailable) as exc:
            self._degrade(str(exc))
        return self.port != before

    async def _listen(self) -> None:
        sock = bind_tcp(ADDRESS, self._ports)
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=sock, backlog=BACKLOG)
        self.port = sock.getsockname()[1]
        self._warning = None
        self._runner.log.info("listening on %s", self.url)

    def close(self) -> None:
        """Stop listening. What is under way is answered."""
        self.port, self._on = 0, False
        if self._server is not None:
            self._server.close()
            self._server = None

    def hang_up(self) -> None:
        """Close the connections once their answers are out: the broker leaves."""
        for connection in list(self._connections):
            connection.close()

    def _degrade(self, why: str) -> None:
        warning = {
            "what": f"not listening for HTTP: {why}; tried again every {RETRY_S:g} s",
            "hint": "name a free http_port, or set http = false; then `mempalace-broker restart`",
        }
        if warning != self._warning:
            self._warning = warning
            self._runner.log.warning("%s", warning["what"])

    # -- connections

    def _accept(self) -> HttpConnection:
        from .connection import HttpConnection  # late, see above

        if not self.endpoint_made:
            from .endpoint import McpEndpoint

            self.endpoint = McpEndpoint(self._runner, self._number)
            self.endpoint_made = True
        return HttpConnection(self)

    def made(self, connection: HttpConnection) -> None:
        """A connection was accepted. Where there are too many, the oldest of those that showed no token goes first."""
        if len(self._connections) >= MOST:
            idle = [other for other in self._connections if other.reply is None]
            strangers = (other for other in idle if not other.known)
            (next(strangers, None) or next(iter(idle), connection)).drop()
        self._connections[connection] = None
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def lost(self, connection: HttpConnection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)

    def _sweep(self) -> None:
        """Drop whoever had its time."""
        now = asyncio.get_running_loop().time()
        for connection in [one for one in self._connections if one.overdue(now)]:
            connection.drop()
        self._sweeping = bool(self._connections)
        if self._sweeping:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    @property
    def overfull(self) -> bool:
        """Whether the bodies on their way take too much memory."""
        return sum(connection.held for connection in self._connections) > MOST_HELD

    def judge(self, head: Head) -> Admitted | Refusal:
        """Whether a request may go on."""
        versions = (VERSION, *self._runner.protocol.answers.protocols)
        return judge(head, port=self.port, keys=self._tokens.keys, versions=versions)

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal."""
        self._refused[refusal.status] = self._refused.get(refusal.status, 0) + 1

    # -- what people see

    def degraded(self) -> list[dict[str, str]]:
        """What is not as configured, or deserves a second look."""
        return [self._warning] if self._warning is not None else []

    def as_json(self) -> dict[str, Any] | None:
        """For status; None where `http` is off. Nothing secret."""
        if not self._on:
            return None
        made = self.endpoint_made
        return {
            "url": self.url or None,
            "connections": len(self._connections),
            "sessions": len(self.endpoint.sessions) if made else 0,
            "running": len(self.endpoint.exchanges) if made else 0,
            "requests": self.endpoint.requests if made else 0,
            "refused": {str(status): count for status, count in sorted(self._refused.items())},
        }
