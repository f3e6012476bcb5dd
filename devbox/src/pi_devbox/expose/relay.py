"""Accept connections on some addresses, and link each of them with the server on loopback."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

from .backend import Backend, State
from .link import CONNECT_S, Link, dial, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from .listeners import Listeners

TICK_S = 1.0  # how often to look for a server that does not listen, and for an address that is gone
LOOK_S = 1.5  # for one such look; the kernel tries a second time after one second
LEAVE_S = 2.0  # for all connections together, at the end
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Relay:
    """Serves until an exception (Ctrl-C, a signal) ends it, and then closes all it has opened."""

    def __init__(self, listeners: Listeners, port: int, most: int, say: Callable[[str], None]) -> None:
        """Relay `listeners` to 127.0.0.1:port, at most `most` connections at once."""
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
        try:
            while True:
                self._serve_these()
        finally:
            self._end()

    def _serve_these(self) -> None:
        """Accept and relay until there are other listeners."""
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners.sockets.values():
                selector.register(listener, selectors.EVENT_READ)
            while not self._listeners.follow():
                if self._backend.state is not State.LISTENS:
                    self._look()
                for key, _ in selector.select(TICK_S):
                    self._take(key.fileobj)  # type: ignore[arg-type]  # a socket: nothing else is registered

    def _look(self) -> None:
        """Check whether the server listens."""
        sock = self._dial(LOOK_S)
        if sock is not None:
            sock.close()

    def _dial(self, limit: float) -> socket.socket | None:
        """Connect to the server, and take note of how that went."""
        sock = None
        try:
            sock, state = dial(self._backend.port, limit), State.LISTENS
        except TimeoutError:
            state = State.STUCK
        except OSError as exc:
            if exc.errno in _EXHAUSTED:  # says nothing of the server
                self._tell_once(f"can't connect to Studio: {exc.strerror}.")
                return None
            state = State.ABSENT
        with self._lock:
            if news := self._backend.observe(state):
                self._say(news)
        return sock

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
        far = self._dial(CONNECT_S)
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

    def _tell_once(self, text: str) -> None:
        with self._lock:
            if text not in self._told:
                self._told.add(text)
                self._say(text)

    def _end(self) -> None:
        self._listeners.close()
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
