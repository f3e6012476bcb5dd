"""For tests of the route over TCP: a blocking driver of the client's machine, and listeners that misbehave."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

from mempalace_broker.protocol.tcp_auth import AuthState, ServerSide
from mempalace_broker.route.endpoint import parse
from mempalace_broker.route.tcp import TcpRoute
from mempalace_broker.system.clock import Clock, Deadline

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
