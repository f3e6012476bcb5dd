"""Servers on loopback for studio-expose to relay to, with one thread per connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(handler: Handler, port: int = 0) -> Iterator[int]:
    """Run a TCP server and return its port. `handler` may leave its socket open or closed."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    conns: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def one(conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):  # the peer's or the test's end
            handler(conn)

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed below
            while True:
                conn, _ = listener.accept()
                conns.append(conn)
                threads.append(threading.Thread(target=one, args=(conn,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
        acceptor.join(10)
        for conn in conns:
            with contextlib.suppress(OSError):  # closed already
                conn.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


def echo(conn: socket.socket) -> None:
    """Echo all bytes."""
    while data := conn.recv(65536):
        conn.sendall(data)


@contextlib.contextmanager
def studio(page: str, visited: list[str]) -> Iterator[int]:
    """A page at "/", and a WebSocket at "/ws" that answers in capitals; its port. Keeps the paths asked for."""

    def answer(_: ServerConnection, request: Request) -> Response | None:
        visited.append(request.path)
        if request.path.partition("?")[0] == "/ws":
            return None
        body = page.encode()
        headers = Headers({"Content-Type": "text/html", "Content-Length": str(len(body)), "Connection": "close"})
        return Response(200, "OK", headers, body)

    def talk(conn: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the browser leaves as it likes
            for message in conn:
                conn.send(message.upper())

    with serve(talk, "127.0.0.1", 0, process_request=answer, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.socket.getsockname()[1])
        finally:
            server.shutdown()
            thread.join(10)
