"""The bridge's loop: shims that ask, one tunnel, and leaving without a trace. One thread; route/machine/bridge decides.

While a tunnel is being set up nothing else happens: shims that come meanwhile wait in the socket's backlog, and the one
set-up answers them all.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, BrokerUnavailable, file_hint
from ...protocol.jsonrpc import to_bytes
from ...system.shared_files import unlink_quietly
from ..machine.bridge import BridgeState, BridgeTask
from . import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...system.clock import Clock
    from .tunnel import Tunnel

TICK_S = 1.0  # between two checks that our files are still there
MAX_LOG = 512 * 1024
_BACKLOG = 512
_MAX_REQUEST = 64


@dataclass
class User:
    """A shim's connection to us.

    Attributes:
        said: its words so far. asked: it waits for an answer.
        given: our copy of the descriptor that it got, to cut it where the host is frozen.
    """

    sock: socket.socket
    said: bytes = b""
    asked: bool = False
    given: socket.socket | None = None

    def cut(self) -> None:
        """Let the shim see the end of its connection, whatever ssh believes."""
        if self.given is not None:
            with contextlib.suppress(OSError):  # it has ended already
                self.given.shutdown(socket.SHUT_RDWR)
            self.given.close()
            self.given = None


class Bridge:
    """The loop. `run` returns when it is time to leave; `close` leaves.

    Args:
        tunnel: to the host. path: where to listen. in_place: whether our lock file is still the lock file.
    """

    def __init__(
        self, tunnel: Tunnel, path: str, linger: float, clock: Clock, *, in_place: Callable[[], bool] = lambda: True
    ) -> None:
        self._tunnel = tunnel
        self._path = path
        self._clock = clock
        self._in_place = in_place
        self._state = BridgeState(clock.monotonic(), linger)
        self._listener: socket.socket | None = None
        self._inode = (0, 0)
        self._users: dict[int, User] = {}
        self._poll = select.poll()
        self._watched = -1
        self._error: BrokerError | None = None

    # -- life

    def listen(self) -> None:
        """Bind, or bind again where somebody removed our socket. Only for the lock's holder."""
        if self._listener is not None:
            self._poll.unregister(self._listener.fileno())
            self._listener.close()
        unlink_quietly(self._path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        os.chmod(self._path, 0o600)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        info = os.lstat(self._path)
        self._inode = (info.st_dev, info.st_ino)
        self._poll.register(self._listener.fileno(), select.POLLIN)

    def run(self) -> None:
        """Serve until nobody has needed the bridge for a while, or its files were removed."""
        while True:
            now = self._clock.monotonic()
            task = self._state.task(now)
            if task is BridgeTask.LEAVE:
                return
            if task is BridgeTask.REST:
                self._tunnel.let_go()  # whoever asked may have left during the check
                self._wait(min(self._state.pause(now), TICK_S))
                if not self._in_place():
                    say("the lock file is gone: leaving")
                    return
                self._stay_bound()
            else:
                self._do(task, now)
                self._wait(0.0)

    def close(self) -> None:
        """Leave: accept no more shims, close the tunnel, remove the socket."""
        unlink_quietly(self._path)
        if self._listener is not None:
            self._listener.close()
        for user in self._users.values():
            user.cut()
            user.sock.close()
        self._users.clear()
        self._tunnel.close()

    def _stay_bound(self) -> None:
        try:
            info = os.lstat(self._path)
            same = stat.S_ISSOCK(info.st_mode) and (info.st_dev, info.st_ino) == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            say("our socket was removed: binding it again")
            self.listen()

    # -- events

    def _wait(self, seconds: float) -> None:
        self._watch()
        for fd, _ in self._poll.poll(seconds * 1000):
            if self._listener is not None and fd == self._listener.fileno():
                self._accept(self._listener)
            elif fd == self._watched:
                self._look()
            elif fd in self._users:
                self._hear(self._users[fd])

    def _watch(self) -> None:
        """Have poll report the end of the connection to the host."""
        fd = self._tunnel.fd
        if fd == self._watched:
            return
        if self._watched >= 0:
            self._poll.unregister(self._watched)
        if fd >= 0:
            self._poll.register(fd, select.POLLIN)
        self._watched = fd

    def _look(self) -> None:
        if not self._tunnel.alive():
            say("the connection to the host ended")
            self._lose()

    def _lose(self) -> None:
        """The connection to the host has ended, or is as good as ended."""
        if self._watched >= 0:
            self._poll.unregister(self._watched)
            self._watched = -1
        self._tunnel.drop()
        self._state.lost()
        for user in self._users.values():
            user.cut()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                self._users[sock.fileno()] = User(sock)
                self._poll.register(sock.fileno(), select.POLLIN)
                self._state.joined()

    def _hear(self, user: User) -> None:
        try:
            data = user.sock.recv(_MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        user.said += data
        if not data or len(user.said) > _MAX_REQUEST or (user.asked or user.given is not None):
            self._leave(user)
        elif user.said == wire.STATUS:
            self._tell(user, self._status())
            self._leave(user)
        elif user.said in (wire.NEW, wire.AGAIN):
            user.asked = True
            self._state.asked(again=user.said == wire.AGAIN)

    def _leave(self, user: User) -> None:
        fd = user.sock.fileno()
        self._poll.unregister(fd)
        del self._users[fd]
        if user.given is not None:
            user.given.close()
        user.sock.close()
        self._state.left(self._clock.monotonic(), waiting=user.asked)

    # -- tasks

    def _do(self, task: BridgeTask, now: float) -> None:
        try:
            if task is BridgeTask.SERVE:
                self._serve()
            elif task is BridgeTask.REFUSE:
                self._refuse()
            elif task is BridgeTask.PROBE:
                self._probe(now)
            elif task is BridgeTask.CHECK and self._tunnel.check(again=self._state.again):
                self._state.checked(now)
            else:
                self._set_up(now)
        except BrokerError as exc:
            self._fail(exc)
        except OSError as exc:
            hint = file_hint(exc, otherwise="end programs, if there are too many")
            self._fail(BrokerUnavailable(f"the bridge can't work: {exc}.", hint=hint))

    def _set_up(self, now: float) -> None:
        self._tunnel.set_up()
        self._state.opened(now, probes=self._tunnel.probes)
        self._error = None

    def _fail(self, exc: BrokerError) -> None:
        say(str(exc))
        self._error = exc
        self._state.failed(self._clock.monotonic())
        if not self._tunnel.alive():
            self._lose()
        self._refuse()

    def _probe(self, now: float) -> None:
        """Nobody asks, but somebody has a connection: would it notice if the host were gone?"""
        if not self._tunnel.check() and self._tunnel.frozen():
            say("the host does not answer any more")
            self._lose()
        else:
            self._state.checked(now)
        self._tunnel.let_go()

    def _waiting(self) -> list[User]:
        return [user for user in self._users.values() if user.asked]

    def _serve(self) -> None:
        for user in self._waiting():
            try:
                sock = self._tunnel.connect()
            except OSError as exc:
                say(f"no connection: {exc}")
                self._state.lost()
                return
            user.asked, user.said = False, b""
            user.given = sock
            self._tell(user, {"state": wire.ANSWER_READY, "started": self._tunnel.started}, sock.fileno())
        self._tunnel.let_go()
        self._tunnel.started = False
        self._state.answered()

    def _refuse(self) -> None:
        error = self._error or BrokerError("no reason is known.")
        for user in self._waiting():
            user.asked, user.said = False, b""
            self._tell(user, {"state": wire.ANSWER_FAILED, "message": error.message, "hint": error.hint})
        self._state.answered()

    def _tell(self, user: User, what: dict[str, Any], fd: int = -1) -> None:
        """Send one line, and a descriptor. The end of a shim that left is noticed later, by its EOF."""
        line = to_bytes(what) + b"\n"
        with contextlib.suppress(OSError):
            if fd >= 0:
                socket.send_fds(user.sock, [line], [fd])
            else:
                user.sock.send(line)

    def _status(self) -> dict[str, Any]:
        error = self._error
        return {
            "state": "up" if self._state.up and self._tunnel.alive() else "down",
            **self._tunnel.describe(),
            "users": self._state.users - 1,
            "pid": os.getpid(),
            "error": error.message if error else "",
            "hint": error.hint if error else "",
        }


def say(text: str) -> None:
    """Write one line into the log, which stays small."""
    with contextlib.suppress(OSError):  # a full disk must not stop us
        if os.fstat(2).st_size > MAX_LOG:
            os.ftruncate(2, 0)
        os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode("utf-8", "replace"))
