"""Accept connections on some addresses, and link each of them with the server on loopback."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

from ..errors import DevboxError
from .backend import Backend
from .link import Link, dial, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TICK_S = 1.0  # how often to look for a server that does not listen
LEAVE_S = 2.0  # for all connections together, at the end
BACKLOG = 512
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        DevboxError: the port is taken or not allowed, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise _no_listener(f"{shown(address)}:{port}", port, exc) from exc
    sock.setblocking(False)
    return sock


def shown(address: str) -> str:
    """Format an address to stand before a port."""
    return f"[{address}]" if ":" in address else address


def _no_listener(where: str, port: int, exc: OSError) -> DevboxError:
    if exc.errno == errno.EADDRINUSE:
        return DevboxError(
            f"{where} is taken: by another studio-expose, or by Studio itself (then you don't need this).",
            hint=f"see which with `ss -ltnp 'sport = :{port}'`, or choose another with --listen-port",
        )
    if exc.errno == errno.EACCES:
        return DevboxError(f"not allowed to listen on {where}.", hint="choose a --listen-port above 1023")
    if exc.errno == errno.EADDRNOTAVAIL:
        return DevboxError(f"{where} is not an address of this container.", hint="see `ip addr` for those it has")
    return DevboxError(f"can't listen on {where}: {exc.strerror or exc}.", hint="try another --bind or --listen-port")


class Relay:
    """Serves until an exception (Ctrl-C, a signal) ends it, and then closes all it has opened."""

    def __init__(self, listeners: Sequence[socket.socket], port: int, most: int, say: Callable[[str], None]) -> None:
        """Relay non-blocking `listeners` to 127.0.0.1:port, at most `most` connections at once."""
        self._listeners = listeners
        self._backend = Backend(port)
        self._most = most
        self._say = say
        self._slots = threading.Semaphore(most)
        self._links: set[Link] = set()
        self._lock = threading.Lock()  # guards _links, _backend and _told
        self._told: set[str] = set()

    def serve(self) -> None:
        """Accept and relay; never return."""
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ)
            try:
                while True:
                    self._look()
                    for key, _ in selector.select(TICK_S):
                        self._take(key.fileobj)  # type: ignore[arg-type]  # a socket: nothing else is registered
            finally:
                self._end()

    def _look(self) -> None:
        """Check whether the server listens, unless it is known to."""
        if self._backend.listens:
            return
        sock = dial(self._backend.port)
        self._observe(sock is not None)
        if sock is not None:
            sock.close()

    def _take(self, listener: socket.socket) -> None:
        """Accept one connection if there is room; otherwise it waits in the backlog."""
        if not self._slots.acquire(timeout=TICK_S):
            self._tell_once(f"{self._most} connections: further ones wait until one of these ends.")
            return
        try:
            near, _ = listener.accept()
        except OSError as exc:
            self._slots.release()
            if exc.errno in _EXHAUSTED:
                self._tell_once(f"can't take more connections: {exc.strerror}.")
                time.sleep(TICK_S)  # nothing reports when a descriptor is free again
            return  # any other error: the client left while it waited
        near.setblocking(True)
        try:
            threading.Thread(target=self._relay, args=(near,), name="studio-expose", daemon=True).start()
        except RuntimeError:
            reset(near)
            self._slots.release()
            self._tell_once("no more threads: a connection was refused. Hint: raise the container's pids limit.")

    def _relay(self, near: socket.socket) -> None:
        """Serve one connection, in its thread."""
        far = dial(self._backend.port)
        self._observe(far is not None)
        if far is None:
            reset(near)  # as a port without a listener does
            self._slots.release()
            return
        link = Link(near, far)
        with self._lock:
            self._links.add(link)
        try:
            link.run()
        finally:
            with self._lock:
                self._links.discard(link)
            self._slots.release()

    def _observe(self, listens: bool) -> None:
        with self._lock:
            if news := self._backend.observe(listens):
                self._say(news)

    def _tell_once(self, text: str) -> None:
        with self._lock:
            if text not in self._told:
                self._told.add(text)
                self._say(text)

    def _end(self) -> None:
        for listener in self._listeners:
            listener.close()
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut()
        end = time.monotonic() + LEAVE_S
        for _ in range(self._most):  # a slot that comes back is a connection that has ended
            if not self._slots.acquire(timeout=max(0.0, end - time.monotonic())):
                break


def room_for(wanted: int) -> int:
    """Return how many connections this process has descriptors for, at most `wanted`. May raise its soft limit."""
    import resource

    need = 2 * wanted + 64  # two sockets each, and those of Python and the listeners
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        best = need if hard == resource.RLIM_INFINITY else min(need, hard)
        with contextlib.suppress(OSError, ValueError):  # not allowed: the limit stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
            soft = best
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, (soft - 64) // 2))
