"""The shim's loop: one thread, one poll, between the agent's two pipes, the broker's socket and the relay.

No descriptor of the agent's is switched to non-blocking: that flag belongs to the open file description, which a
terminal or a parent shares. Sockets have a flag per call, pipes can be opened once more, and to anything else nothing
is written before poll says so, and then no more than surely fits.
"""

from __future__ import annotations

import os
import select
import stat
from time import monotonic

from ..errors import EXIT_FAILURE, EXIT_OK, BrokerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..route.finder import RouteFinder
    from .machine.protocol import ShimProtocol

STDIN, STDOUT, STDERR = 0, 1, 2
_READ = 64 * 1024
_GONE = select.POLLERR | select.POLLHUP
_MAX_WAIT_S = 3600.0


class AgentGone(Exception):
    """Nobody reads our answers any more."""


class Writer:
    """Writes to a descriptor of the agent's without ever blocking on it."""

    __slots__ = ("_fd", "_limit", "_poll", "_socket")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._limit = 1 << 30
        self._socket: Any = None
        self._poll: Any = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            from _socket import socket

            self._socket = socket(fileno=os.dup(fd))
        elif not (stat.S_ISFIFO(mode) and self._reopen()):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)
            if not stat.S_ISREG(mode):
                self._limit = select.PIPE_BUF  # what a pipe that is writable surely takes (POSIX)

    def _reopen(self) -> bool:
        """Take an open file description of our own, which may be non-blocking. Only Linux can, and not always."""
        try:
            self._fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def write(self, data: bytes | memoryview) -> int:
        """Write what fits; return how many bytes did, 0 when none. Raises OSError when nobody reads."""
        try:
            if self._socket is not None:
                from _socket import MSG_DONTWAIT

                return int(self._socket.send(data, MSG_DONTWAIT))
            if self._poll is not None and not self._poll.poll(0):
                return 0
            return os.write(self._fd, data if len(data) <= self._limit else memoryview(data)[: self._limit])
        except BlockingIOError:
            return 0


class Pump:
    """Runs a relay until its end.

    Args:
        relay: the machine.
        dial: makes a new connector; raises BrokerError where there is nothing to dial.
    """

    def __init__(self, protocol: ShimProtocol, dial: Callable[[], RouteFinder]) -> None:
        self._protocol = protocol
        self._dial = dial
        self._connector: RouteFinder | None = None
        self._step_at = 0.0
        self._wait_fd = -1
        self._socket: Any = None
        self._fd = -1
        self._eof = False
        self._deaf = False  # stdout can't be watched
        # os.read would allocate and give back as much for each line: half the cost of a call
        self._buffer = memoryview(bytearray(_READ))
        self._out = Writer(STDOUT)
        self._err: Writer | None = None
        self._poll = select.poll()
        self._masks: dict[int, int] = {}

    def run(self) -> int:
        """Pump until stdin ends and all is answered, or stdout breaks; return the exit code."""
        try:
            self._wait(0.0)  # what the agent has sent already goes out in one write with hello
            while True:
                now = monotonic()
                self._protocol.tick(now)
                self._connect(now)
                self._flush_broker(now)
                self._flush_agent()
                self._tell()
                if self._protocol.finished(now):
                    return EXIT_OK
                self._wait(self._timeout(monotonic()))
        except AgentGone:
            return EXIT_OK if self._eof else EXIT_FAILURE

    # -- the broker

    def _connect(self, now: float) -> None:
        protocol = self._protocol
        if protocol.connection.broken and self._socket is not None:
            self._hang_up(protocol.connection.broken, now)
        if self._connector is None and self._socket is None and protocol.wants_connection(now):
            try:
                self._connector = self._dial()
            except BrokerError as exc:
                protocol.failed(exc.code, str(exc), now)
            self._step_at = now
        if self._connector is not None and now >= self._step_at:
            self._step(now)

    def _step(self, now: float) -> None:
        from ..route.attempt import Connected, Waiting

        assert self._connector is not None
        step = self._connector.step()
        self._wait_fd = -1
        if isinstance(step, Waiting):
            self._step_at, self._wait_fd = now + step.seconds, step.fd
            return
        way, self._connector = self._connector, None
        if not isinstance(step, Connected):
            self._protocol.failed(step.error.code, str(step.error), now)
            return
        self._socket = step.sock
        self._fd = step.sock.fileno()
        os.set_blocking(self._fd, False)
        self._protocol.connection.view = way.view(step)
        self._protocol.doubt = lambda welcome: way.verify_palace(step, welcome)
        self._protocol.connected(now)

    def _hang_up(self, reason: str, now: float) -> None:
        self._watch(self._fd, 0)
        self._socket.close()
        self._socket, self._fd = None, -1
        self._protocol.lost(reason, now)

    def _flush_broker(self, now: float) -> None:
        box = self._protocol.connection.to_broker
        while self._fd >= 0 and box.size:
            try:
                box.advance(os.write(self._fd, box.head()))
            except BlockingIOError:
                return
            except OSError as exc:
                self._drain_broker(exc.strerror or str(exc), now)

    def _drain_broker(self, reason: str, now: float) -> None:
        """The broker takes nothing any more, but what it said before may still be in the socket."""
        try:
            while self._fd >= 0 and (data := self._read(self._fd)):
                self._protocol.broker_data(data, now)
        except OSError:
            pass  # whatever it is: the connection is given up in the next line
        if self._fd >= 0:
            self._hang_up(self._protocol.connection.broken or reason, now)

    # -- the agent

    def _flush_agent(self) -> None:
        box = self._protocol.to_agent
        try:
            while box.size:
                count = self._out.write(box.head())
                if not count:
                    return
                box.advance(count)
        except OSError as exc:
            raise AgentGone from exc

    def _tell(self) -> None:
        """Say it on stderr, if somebody listens: a full pipe must not stop us."""
        notices = self._protocol.reconnect.notices
        if not notices:
            return
        text = "".join(f"mp-shim: {notice}\n" for notice in notices).encode("utf-8", "replace")
        notices.clear()
        try:
            if self._err is None:
                self._err = Writer(STDERR)
            self._err.write(text)
        except OSError:
            return  # nobody to tell

    # -- waiting

    def _timeout(self, now: float) -> float:
        due = self._protocol.next_deadline(now)
        if self._connector is not None:
            due = min(due, self._step_at)
        return max(0.0, min(due - now, _MAX_WAIT_S))

    def _watch(self, fd: int, mask: int) -> None:
        """Wait for `mask` on `fd`; 0: not at all, because poll reports a hang-up unasked and would spin."""
        if fd < 0 or self._masks.get(fd, 0) == mask:
            return
        if mask:
            self._poll.register(fd, mask)
            self._masks[fd] = mask
        else:
            self._poll.unregister(fd)
            del self._masks[fd]

    def _wait(self, seconds: float) -> None:
        protocol = self._protocol
        self._watch(STDIN, select.POLLIN if protocol.wants_agent else 0)
        out = select.POLLOUT if protocol.to_agent.size else select.POLLERR  # POLLERR comes anyway: the agent is gone
        self._watch(STDOUT, 0 if self._deaf else out)
        if self._fd >= 0:
            wanted = select.POLLIN if protocol.wants_broker else 0
            self._watch(self._fd, wanted | (select.POLLOUT if protocol.connection.to_broker.size else 0))
        waited = self._wait_fd  # until the next step: the agent's bytes must not make us forget it
        if waited >= 0:
            self._poll.register(waited, select.POLLIN)
        events = self._poll.poll(seconds * 1000)
        if waited >= 0:
            self._poll.unregister(waited)
        now = monotonic()
        for fd, event in events:
            if fd == STDIN:
                self._read_agent(now)
            elif fd == STDOUT and event & _GONE:
                raise AgentGone
            elif fd == STDOUT and event & select.POLLNVAL:  # macOS can't poll devices: do without
                self._watch(STDOUT, 0)
                self._deaf = True
            elif fd == waited:
                self._step_at = now
            elif fd == self._fd and event & ~select.POLLOUT:
                self._read_broker(now)

    def _read(self, fd: int) -> bytes:
        return bytes(self._buffer[: os.readv(fd, (self._buffer,))])

    def _read_agent(self, now: float) -> None:
        try:
            data = self._read(STDIN)
        except OSError:  # a terminal that hung up
            data = b""
        if data:
            self._protocol.agent_data(data, now)
        else:
            self._eof = True
            self._protocol.agent_eof(now)

    def _read_broker(self, now: float) -> None:
        try:
            data = self._read(self._fd)
        except BlockingIOError:
            return
        except OSError as exc:
            self._hang_up(exc.strerror or str(exc), now)
            return
        if data:
            self._protocol.broker_data(data, now)
        else:
            self._hang_up("it closed the connection", now)
