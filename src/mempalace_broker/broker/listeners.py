"""Where clients connect: the unix socket, HTTP, and TCP if that is configured. All lead to the same protocol."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..locality.mounts import is_local
from ..system.file_trust import check_folders
from .connection import TCP, UNIX, Connection
from .health import Doctor
from .http.listener import HttpListener
from .http.viewing import Viewing
from .tcp.listener import TcpListener
from .tcp.port import last_port
from .unix_listener import BACKLOG, Name, bind_unix

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from ..protocol.palace import PalaceIdentity
    from ..settings import BrokerSettings
    from ..system.clock import Clock
    from ..system.paths import StateFiles
    from .runner import ProtocolRunner
    from .tasks import Tasks

_REVOKED = "the token was replaced"


class Listeners:
    """All listeners of one broker, which holds the owner lock.

    Args:
        runner: gets the connections and their input. status: returns the broker's status for the page and the metrics.

    Attributes:
        tcp: the listener on TCP. http: the one for HTTP.
    """

    def __init__(
        self,
        runner: ProtocolRunner,
        *,
        identity: PalaceIdentity,
        files: StateFiles,
        settings: BrokerSettings,
        env: Mapping[str, str],
        clock: Clock,
        tasks: Tasks,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self.tcp = TcpListener(
            settings=settings,
            root=files.root,
            last_port=last_port(files.record),
            clock=clock,
            log=runner.log,
            admit=self._admit,
            revoked=self._drop_tcp_clients,
        )
        self.http = HttpListener(
            runner,
            settings=settings,
            files=files,
            env=env,
            clock=clock,
            tasks=tasks,
            number=self._next_number,
            viewing=Viewing(status=status, health=Doctor(identity, env).ask, clock=clock, tasks=tasks),
        )
        self._runner = runner
        self._files = files
        self._tasks = tasks
        self._count = 0
        self._server: asyncio.Server | None = None
        self._name: Name | None = None

    @property
    def endpoints(self) -> list[str]:
        """Where to dial, best first."""
        return [f"unix:{self._files.socket}", *filter(None, [self.tcp.endpoint])]

    async def open(self) -> None:
        """Listen.

        Raises:
            StateRootError: the unix socket can't be bound. TCP never fails here; it is tried again.
        """
        await self._listen()
        self.tcp.start(asyncio.get_running_loop())
        await self.http.check()

    async def check(self) -> bool:
        """Bind again what is gone; return whether `endpoints` or the token changed. Call it every few seconds.

        Raises:
            StateRootError, OSError: it can't be bound now.
        """
        if self._name is not None and not self._name.intact():
            self._runner.log.warning("the name %s is gone or another's: binding it again", self._files.socket)
            old = self._server
            await self._listen()
            if old is not None:
                old.close()
        await self.http.check()
        return self.tcp.check(asyncio.get_running_loop())

    def close(self) -> None:
        """Stop listening; the socket's name is removed only while it is ours. Connections stay."""
        try:
            if self._name is not None:
                self._name.remove()
        except OSError as exc:
            self._runner.log.warning("cannot remove the socket: %s", exc)
        if self._server is not None:
            self._server.close()
            self._server = None
        self.tcp.close()
        self.http.close()

    def via(self, conn: int) -> str:
        """How a connection came, for status: "unix", "http" or "tcp ADDRESS"."""
        return self._runner.conns[conn].via if conn in self._runner.conns else UNIX

    async def _listen(self) -> None:
        check_folders((self._files.root, self._files.palace), is_local)
        self._files.check_socket_folder()
        listener, self._name = bind_unix(self._files.socket)
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, sock=listener, backlog=BACKLOG)

    def _next_number(self) -> int:
        self._count += 1
        return self._count

    def _accept(self) -> Connection:
        return Connection(self._runner, self._next_number(), owner=self._name.owner if self._name is not None else -1)

    def _admit(self, sock: socket.socket, rest: bytes, address: str) -> None:
        """Take a TCP client that has proved itself."""
        conn = Connection(self._runner, self._next_number(), f"{TCP} {address}", rest)
        self._tasks.start("tcp-session", self._adopt(sock, conn, self.tcp.token))

    async def _adopt(self, sock: socket.socket, conn: Connection, token: str) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: conn, sock)
        if self.tcp.token != token:  # replaced meanwhile
            conn.drop(_REVOKED)

    def _drop_tcp_clients(self) -> None:
        for conn in list(self._runner.conns.values()):
            if conn.via.startswith(TCP):  # a request over HTTP has shown another token
                conn.drop(_REVOKED)
