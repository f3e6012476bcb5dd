"""For tests of the route over TCP: a blocking driver of the client's machine, and listeners that misbehave."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

from mempalace_broker.protocol.tcp_auth import AuthState, ServerSide
from mempalace_broker.route.endpoint import parse
from mempalace_broker.route.tcp import TcpRoute
from mempalace_broker.system.clock import Clock, Deadline
from tests.background import Background

TOKEN = "c0ffee00" * 8


def connect(endpoint: str, token: str, seconds: float = 10.0) -> socket.socket:
    """A connection on which both sides have proved themselves; blocking. Raises BrokerError as the route fails."""
    clock = Clock()
    route = TcpRoute(parse(endpoint, ""), token, Deadline.after(clock, seconds))
    raw = route.run().sock
    sock = socket.socket(fileno=raw.detach())
    sock.setblocking(True)
    return sock


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Somebody who listens: `serve` gets each connection, one after the other. Yields the endpoint."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(16)
        thread = threading.Thread(target=_serve, args=(sock, serve), daemon=True)
        thread.start()
        address, port = sock.getsockname()[:2]
        yield f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
        sock.shutdown(socket.SHUT_RDWR)  # wakes accept()
        thread.join(10)
        assert not thread.is_alive()


def _serve(sock: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            conn, _ = sock.accept()
        except OSError:
            return  # closed by `listener`
        with conn, contextlib.suppress(OSError):  # the other side may be gone at any time
            conn.settimeout(10)
            serve(conn)


def broker_like(token: str = TOKEN, then: bytes = b"") -> Callable[[socket.socket], None]:
    """A listener that knows `token`, and says `then` to whoever has proved himself."""

    def serve(conn: socket.socket) -> None:
        side = ServerSide(token, os.urandom(32), conn.getsockname()[1])
        while side.state == AuthState.OPEN:
            data = conn.recv(4096)
            if not data:
                return
            conn.sendall(side.feed(data))
        conn.sendall(then)
        conn.recv(1)  # until the client is done

    return serve


class Forwarder(Background):
    """An address of 127.0.0.1 that leads to whichever server it is told to, as one that moves to another machine.

    Attributes:
        port: of that address. target: where new connections go; those that are open stay where they are.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._other: dict[socket.socket, socket.socket] = {}

    def run(self) -> None:
        with self._listener, self._woken:
            while True:
                ready = select.select([self._listener, self._woken, *self._other], [], [])[0]
                if self._woken in ready:
                    break
                for sock in ready:
                    if sock is self._listener:
                        self._accept()
                    elif sock in self._other:
                        self._pass_on(sock)
        for sock in self._other:
            sock.close()

    def end(self) -> None:
        self._wake.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self.target, 5)
        except OSError:
            near.close()
            return
        self._other |= {near: far, far: near}

    def _pass_on(self, sock: socket.socket) -> None:
        other = self._other[sock]
        with contextlib.suppress(OSError):
            if data := sock.recv(1 << 16):
                other.sendall(data)
                return
        for side in (sock, other):
            del self._other[side]
            side.close()
