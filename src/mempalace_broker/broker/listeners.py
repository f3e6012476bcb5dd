"""Where clients come in: the unix socket, and TCP if it was asked for. What came in is a connection like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..system.atomic_files import unlink_quietly
from .connection import UNIX, Connection
from .tcp.listener import TcpListener, last_port
from .unix_listener import Name, bind_unix

if TYPE_CHECKING:
    import asyncio
    import socket

    from ..settings import BrokerSettings
    from ..system.clock import Clock
    from ..system.paths import StateFiles
    from .connection import Listener
    from .tasks import Tasks

_REVOKED = "the token was replaced"


class Listeners:
    """All doors of one broker; its caller holds the owner lock.

    Args:
        app: hears of what clients do.

    Attributes:
        conns: the connections that are open, by number. tcp: the listener on TCP.
    """

    def __init__(
        self, app: Listener, *, files: StateFiles, settings: BrokerSettings, clock: Clock, tasks: Tasks
    ) -> None:
        self.conns: dict[int, Connection] = {}
        self.tcp = TcpListener(
            settings=settings,
            root=files.root,
            last_port=last_port(files.record),
            clock=clock,
            log=app.log,
            admit=self._admit,
            revoked=self._drop_remote,
        )
        self._app = app
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
            StateRootError: the socket can't be placed. TCP never fails, it is tried again.
        """
        await self._listen()
        self.tcp.start(self._app.loop)

    async def check(self) -> bool:
        """To be called every few seconds: mend what is gone; whether `endpoints` or the token changed.

        Raises:
            StateRootError, OSError: it can't be mended now.
        """
        if self._name is not None and not self._name.intact():
            self._app.log.warning("the name %s is gone or another's: binding it again", self._files.socket)
            old = self._server
            await self._listen()
            if old is not None:
                old.close()
        return self.tcp.check(self._app.loop)

    def close(self) -> None:
        """Listen no more; the socket's name goes only while it is ours. Connections stay."""
        try:
            if self._name is not None and self._name.intact():
                unlink_quietly(self._files.socket)
        except OSError as exc:
            self._app.log.warning("cannot remove the socket: %s", exc)
        if self._server is not None:
            self._server.close()
            self._server = None
        self.tcp.close()

    def via(self, conn: int) -> str:
        """How a connection came, for status: "unix" or "tcp ADDRESS"."""
        return self.conns[conn].via if conn in self.conns else UNIX

    async def _listen(self) -> None:
        listener, self._name = bind_unix(self._files.socket)
        self._server = await self._app.loop.create_unix_server(self._accept, sock=listener)

    def _accept(self) -> Connection:
        self._count += 1
        return Connection(self._app, self._count)

    def _admit(self, sock: socket.socket, rest: bytes, address: str) -> None:
        """A TCP client has proved itself."""
        self._count += 1
        conn = Connection(self._app, self._count, f"tcp {address}", rest)
        self._tasks.start("tcp-session", self._adopt(sock, conn, self.tcp.token))

    async def _adopt(self, sock: socket.socket, conn: Connection, token: str) -> None:
        await self._app.loop.connect_accepted_socket(lambda: conn, sock)
        if self.tcp.token != token:  # replaced meanwhile
            conn.drop(_REVOKED)

    def _drop_remote(self) -> None:
        for conn in list(self.conns.values()):
            if conn.via != UNIX:
                conn.drop(_REVOKED)
