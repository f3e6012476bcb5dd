"""The broker's listener for HTTP: on 127.0.0.1 alone, with a token that only the user can read.

What reads HTTP is imported when the first client connects: a broker that nobody asks over HTTP pays for a bound socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any

from ..admission import MOST_UNREAD, largest_of
from ..jobs.store import any_job
from ..machine.session import Origin
from ..tcp.address import Unavailable
from ..tcp.gate import ACCEPTS
from ..tcp.port import bind_tcp, candidate_ports
from .eviction import MOST, one_too_many
from .handover import NAME, Handover, take
from .hub import AnotherHub, HubRecord
from .keeper import Keeper
from .machine.gate import MCP, VIEWS, judge
from .machine.hub_record import ADDRESS
from .machine.modern import VERSION
from .token import HttpTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...settings import BrokerSettings
    from ...system.clock import Clock
    from ...system.paths import StateFiles
    from ..jobs.service import JobService
    from ..runner import ProtocolRunner
    from ..tasks import Tasks
    from .connection import HttpConnection
    from .endpoint import McpEndpoint
    from .handover import Taken
    from .machine.gate import Admitted, Head, Refusal
    from .viewing import Viewing

MOST_HELD = 128 << 20  # bytes of all bodies that are on their way
RETRY_S = 30.0
SWEEP_S = 2.0
WANTED_S = 8 * 3600.0  # after the last request, as long as mempalace's own hub waits
BACKLOG = 512


class HttpListener:
    """One listener; does nothing where the setting `http` is off.

    Args:
        number: gives each client its number. viewing: answers the requests for the page and the metrics.

    Attributes:
        port: 0 while it does not listen. stall_s: a client that reads nothing for so long is dropped.
        turns: in which connections are read. endpoint: of the requests; made with the first connection.
    """

    endpoint: McpEndpoint

    def __init__(
        self,
        runner: ProtocolRunner,
        *,
        settings: BrokerSettings,
        files: StateFiles,
        env: Mapping[str, str],
        clock: Clock,
        tasks: Tasks,
        number: Callable[[], int],
        viewing: Viewing,
    ) -> None:
        self.port = 0
        self._bound = 0  # the last port: connections outlive the listener
        self.stall_s = runner.stall_s
        self.turns = runner.turns
        self.endpoint_made = False
        self._runner = runner
        self._on = settings.http
        self._ports = candidate_ports(settings.http_port, 0, f"{files.palace}#http")
        self._clock = clock
        self._tasks = tasks
        self._number = number
        self._viewing = viewing
        self._palace = files.palace
        self._private = files.private
        self._hub = HubRecord(files, env)
        self._keeper = Keeper(files.palace, env)
        self._relied_on = False  # by clients that would open the palace themselves without us
        self._port = settings.http_port
        self._taken: Taken | None = None
        self._handover: Handover | None = None
        self._tokens = HttpTokens(files.private, self._hub)
        self._server: asyncio.Server | None = None
        self._connections: dict[HttpConnection, None] = {}
        self._sweeping = False
        self._sought_jobs = False
        self._checking = asyncio.Lock()
        self._warning: dict[str, str] | None = None
        self._unfound = ""  # why mempalace's own commands don't find us
        self._unkept = ""  # why nobody keeps the socket
        self._look_at = 0.0
        self._refused: dict[int, int] = {}

    @functools.cached_property
    def jobs(self) -> JobService:
        """The job API, made at its first use."""
        from ..jobs.service import JobService

        service = JobService(
            self._runner,
            private=self._private,
            palace=self._palace,
            clock=self._clock,
            tasks=self._tasks,
            number=self._number,
        )
        service.load()
        return service

    @property
    def url(self) -> str:
        """Where MCP is, "" while it does not listen."""
        return f"http://{ADDRESS}:{self.port}{MCP}" if self.port else ""

    async def check(self) -> bool:
        """Listen if we should and don't, and read the token again; whether `url` changed. Call it every few seconds."""
        async with self._checking:
            return await self._check()

    async def _check(self) -> bool:
        if not self._on or (not self.port and self._private.problem()):  # of that, others warn
            return False
        before = self.port
        try:
            self._tokens.read()
            self._viewing.read(self._tokens)
            if not self.port and self._clock.monotonic() >= self._look_at:
                self._look_at = self._clock.monotonic() + RETRY_S
                await self._listen()
            if self.port:
                self._warning = None
        except (OSError, Unavailable) as exc:
            self._degrade(str(exc))
        if self.port:
            await self._keep_socket()
            await self._publish()
            if not self._sought_jobs:
                self._sought_jobs = True
                if await asyncio.to_thread(any_job, self._private):
                    self.jobs.load()
        return self.port != before

    async def _keep_socket(self) -> None:
        if self._relied_on and not self._keeper.pid and self._server is not None:
            try:
                await asyncio.to_thread(self._keeper.start, self._server.sockets[0])
            except OSError as exc:
                if str(exc) != self._unkept:
                    self._unkept = str(exc)
                    self._runner.log.warning("the socket for HTTP will be lost if this broker is killed: %s", exc)

    async def _publish(self) -> None:
        """Tell mempalace's own commands where we are, and what the engine can do."""
        protocol = self._runner.protocol
        homes = [one.home for one in protocol.sessions.values() if one.home and one.origin is Origin.HOST]
        fingerprint = protocol.dispatcher.report.fingerprint
        why = ""
        try:
            tools, pid = protocol.answers.tools, self._keeper.pid
            await asyncio.to_thread(self._hub.publish, self.port, tools, fingerprint, homes, pid)
        except (OSError, AnotherHub) as exc:
            why = str(exc)
        if why and why != self._unfound:
            self._runner.log.warning("mempalace's own commands don't find this broker: %s", why)
        self._unfound = why
        while self._hub.set_aside:
            text = "mempalace's own daemon left its jobs in %s; those that it had not run stay there, and are not run"
            self._runner.log.warning(text, self._hub.set_aside.pop())
        if self._taken is not None and protocol.answers.tools is not None:  # else no record of ours can be there yet
            self._taken.parent.close()
            self._taken = None

    async def _listen(self) -> None:
        self._taken = await asyncio.to_thread(take, self._hub.file(NAME), self._port)
        sock = self._taken.listener if self._taken is not None else bind_tcp(ADDRESS, self._ports)
        self._relied_on = self._taken is not None and self._taken.relied_on
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=sock, backlog=ACCEPTS)
        sock.listen(BACKLOG)  # asyncio takes as many at once as its backlog says: a flood would push out all others
        self.port = self._bound = sock.getsockname()[1]
        for connection in self._taken.connections if self._taken is not None else ():
            await asyncio.get_running_loop().connect_accepted_socket(self._accept, connection)
        self._runner.log.info("listening on %s", self.url)

    def close(self, *, hand_over: bool = False) -> None:
        """Stop listening; what is under way is answered. With `hand_over` the next broker answers whoever comes now."""
        if self._on and self._server is not None:
            try:
                if hand_over:
                    self._handover = Handover(self._server.sockets[0].dup(), self._hub.file(NAME))
                    self._handover.relied_on = self._relied_on
                else:
                    self._hub.withdraw()
                    self._keeper.dismiss()
            except OSError as exc:
                self._runner.log.warning("clients over HTTP may not find the next broker at once: %s", exc)
        for connection in list(self._connections):
            self._pass_on(connection)
        self.port, self._on = 0, False
        if self._server is not None:
            self._server.close()
            self._server = None

    def _pass_on(self, connection: HttpConnection) -> None:
        """Keep a connection for the next broker, if one is to come and nothing is under way on it."""
        if self._handover is not None and connection.at_rest:
            self._handover.connections.append(connection.release())

    def hand_over(self) -> None:
        """Stay until the next broker has taken our place, if one is to come. Blocks: call it when all else is over."""
        if self._handover is not None:
            self._handover.run()
            with contextlib.suppress(OSError):
                self._hub.withdraw()  # nobody came
        self._keeper.dismiss()

    def hang_up(self) -> None:
        """Close the connections once their answers are out: the broker leaves."""
        for connection in list(self._connections):
            connection.close()

    def _degrade(self, why: str) -> None:
        warning = {
            "what": f"not listening for HTTP: {why}; tried again every {RETRY_S:g} s",
            "hint": "name a free http_port, or set http = false; then `mempalace-broker restart`",
        }
        if self.port:
            warning = {
                "what": f"the tokens for HTTP can't be read again: {why}",
                "hint": "correct that file, or remove it: the broker makes a new one",
            }
        if warning != self._warning:
            self._warning = warning
            self._runner.log.warning("%s", warning["what"])

    # -- connections

    def _accept(self) -> HttpConnection:
        from .connection import HttpConnection  # late, see above

        if not self.endpoint_made:
            from .endpoint import McpEndpoint

            self.endpoint = McpEndpoint(self._runner, self._number, lambda: self.jobs)
            self.endpoint_made = True
        return HttpConnection(self)

    def made(self, connection: HttpConnection) -> None:
        """A connection was accepted; where there are too many, another one goes."""
        self._connections[connection] = None
        if len(self._connections) > MOST:
            victim = one_too_many(self._connections, connection)
            victim.drop()
            self.lost(victim)  # at once: many may come before the loop reports it
        self._pass_on(connection)
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

    def limit_unread(self) -> None:
        """Drop the client with the most unread bytes if those of all take too much memory."""
        largest = largest_of(self._connections, lambda connection: connection.unread, MOST_UNREAD)
        if largest is not None:
            self._runner.log.warning("dropping a client over HTTP: its unread answers use too much memory")
            largest.drop()

    def judge(self, head: Head) -> Admitted | Refusal:
        """Whether a request may go on."""
        versions = (VERSION, *self._runner.protocol.answers.protocols)
        views = self._viewing.access
        return judge(head, port=self._bound, keys=self._tokens.keys, versions=versions, views=views)

    def handle(self, connection: HttpConnection, call: Admitted, body: bytes) -> None:
        """Answer an admitted request.

        A request keeps the broker running, because such clients come back without notice, and would open the palace
        themselves. Requests for the page and the metrics don't.
        """
        if call.route in VIEWS:
            self._viewing.handle(connection, call, self.endpoint, self._bound)
            return
        if call.origin is Origin.USER and not self._relied_on:
            self._relied_on = True
            self._tasks.start("keep-socket", self.check())
        self._runner.protocol.lifecycle.wanted(self._clock.monotonic() + WANTED_S)
        self.endpoint.handle(connection, call, body)

    def open_page(self, id_: Any) -> bytes:
        """Return the answer to `broker/open`."""
        return self._viewing.link(id_, self.port)

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal."""
        self._refused[refusal.status] = self._refused.get(refusal.status, 0) + 1

    # -- what people see

    def degraded(self) -> list[dict[str, str]]:
        """What is not as configured, or deserves a second look."""
        out = [self._warning] if self._warning is not None else []
        if self._unfound:
            what = f"mempalace's own commands open the palace beside this broker: {self._unfound}"
            out.append({"what": what, "hint": "end that process, or make the folder writable"})
        return out

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
            "jobs": self.jobs.queue.counts() if "jobs" in self.__dict__ else {},
            "refused": {str(status): count for status, count in sorted(self._refused.items())},
        }
