"""The shim's loop: one thread and one poll between the agent's two pipes, the broker's socket and the protocol.

No descriptor of the agent is made non-blocking: that flag belongs to the open file description, which a terminal or a
parent shares. Sockets take a flag with each call and pipes can be opened a second time; to anything else, and to
everything on macOS, the shim writes only when poll allows it, and no more than certainly fits.
"""

from __future__ import annotations

import os
import select
import stat
from time import monotonic, sleep

from ..errors import EXIT_FAILURE, EXIT_OK, BrokerError
from ..protocol.jsonrpc import shown
from ..system import kernel
from .machine.effects import TranslatePaths, VerifyPalace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..route.finder import RouteFinder
    from ..system.hangup import Hangup
    from .dialer import Dialer
    from .machine.effects import Effect
    from .machine.protocol import ShimProtocol

STDIN, STDOUT, STDERR = 0, 1, 2
_READ, _MAX_WAIT_S = 64 * 1024, 3600.0
_GONE = select.POLLERR | select.POLLHUP
_LONGEST_NOTICE = 4000  # characters
_FIRST_REST_S, _MAX_REST_S = 0.005, 1.0  # after faults that follow one another
_NEVER, _PRIVATE_AFTER_S = float("inf"), 0.1  # the first answers need not wait for it: it takes half a millisecond


class AgentGone(Exception):
    """Nobody reads the answers any more."""


class DescriptorWriter:
    """Writes to a descriptor of the agent without ever blocking on it."""

    __slots__ = ("_fd", "_limit", "_poll", "_send")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._limit = 1 << 30
        self._send: Any = None
        self._poll: Any = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode) and not kernel.MACOS:
            from _socket import MSG_DONTWAIT, socket

            sock = socket(fileno=os.dup(fd))
            self._send = lambda data: sock.send(data, MSG_DONTWAIT)
        elif not (stat.S_ISFIFO(mode) and self._reopen()):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)
            if not stat.S_ISREG(mode):  # so much fits without blocking, if anything does; of pipes, POSIX says it
                self._limit = kernel.SOCKET_ROOM if stat.S_ISSOCK(mode) else select.PIPE_BUF

    def _reopen(self) -> bool:
        """Open the pipe again, with a file description of our own that is non-blocking. Works on Linux, not always."""
        try:
            self._fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def write(self, data: bytes | memoryview) -> int:
        """Write as much as fits; return the number of bytes, which may be 0. Raises OSError when nobody reads."""
        try:
            if self._send is not None:
                return int(self._send(data))
            if self._poll is not None and not self._poll.poll(0):
                return 0
            return os.write(self._fd, data if len(data) <= self._limit else memoryview(data)[: self._limit])
        except BlockingIOError:
            return 0


class Pump:
    """Runs one session until its end.

    Args:
        protocol: decides.
        dialer: finds brokers, and what the protocol has to know about files.
        hangup: what reports that nobody reads stdout any more, where poll does not.
    """

    def __init__(self, protocol: ShimProtocol, dialer: Dialer, hangup: type[Hangup] | None = None) -> None:
        self._protocol = protocol
        self._dialer = dialer
        self._faults = 0  # since the last turn that went well
        self._private_at = monotonic() + _PRIVATE_AFTER_S
        self._finder: RouteFinder | None = None  # an attempt to connect that is under way
        self._step_at, self._wait_fd = 0.0, -1  # the attempt goes on then, or as soon as that is readable
        self._socket: Any = None
        self._fd = -1
        self._eof = self._stdout_unwatchable = False
        self._buffer = memoryview(bytearray(_READ))  # os.read would allocate as much for each line: half of a call
        self._out = DescriptorWriter(STDOUT)
        self._err: DescriptorWriter | None = None
        self._poll = select.poll()
        self._masks: dict[int, int] = {}
        self._hangup = hangup(STDOUT, self._poll, writes=True) if hangup is not None else None

    def run(self) -> int:
        """Pump until stdin ends and everything is answered, or stdout breaks; return the exit code. Nothing else
        ends it: whatever is raised becomes an error of the requests that are open.
        """
        wait_s = 0.0  # requests that the agent has sent already go out in one write with hello
        try:
            while True:
                try:
                    self._wait(wait_s)
                    now = monotonic()
                    self._turn(now)
                    if now >= self._private_at:
                        self._private_at = _NEVER
                        self._dialer.keep_private()
                    wait_s = self._timeout(monotonic())
                    self._faults = 0
                except AgentGone:
                    raise
                except Exception as exc:  # noqa: BLE001 - see above
                    self._start_afresh(exc)
                    wait_s = 0.0
                if self._protocol.finished(monotonic()):
                    return EXIT_OK
        except AgentGone:
            return EXIT_OK if self._eof else EXIT_FAILURE

    def _turn(self, now: float) -> None:
        self._protocol.tick(now)
        self._perform_effects(now)
        self._connect(now)
        self._perform_effects(now)
        self._flush_broker(now)
        self._flush_agent()
        self._flush_notices()

    def _start_afresh(self, exc: Exception) -> None:
        """Something failed that should not: give up the attempt and the connection, and fail the open requests."""
        sleep(min(_MAX_REST_S, _FIRST_REST_S * 2 ** min(self._faults, 9)))  # a fault that stays must not spin
        self._faults += 1
        finder, self._finder, self._wait_fd = self._finder, None, -1
        try:
            self._protocol.fault(exc, monotonic())
            self._close_socket()
            if finder is not None:
                finder.close()
            self._flush_agent()
        except AgentGone:
            raise
        except Exception:  # noqa: BLE001 - out of memory, most likely: the next turn fails again, and tries this again
            return

    # -- effects

    def _perform_effects(self, now: float) -> None:
        effects = self._protocol.effects
        while effects:
            self._perform(effects.pop(0), now)

    def _perform(self, effect: Effect, now: float) -> None:
        """Find out what the protocol asks for, and report it."""
        if isinstance(effect, VerifyPalace):
            self._protocol.palace_verified(self._dialer.verify_palace(effect.welcome), now)
        elif isinstance(effect, TranslatePaths):
            names: dict[str, str | None] = {}
            try:
                names = self._dialer.translate_paths(effect.paths, effect.files)
            except BrokerError as exc:
                self._protocol.notices.append(str(exc))
            self._protocol.paths_translated(effect.key, names, now)
        else:
            self._protocol.answers_read(self._dialer.read_answers(), now)

    # -- the broker

    def _connect(self, now: float) -> None:
        protocol = self._protocol
        if protocol.connection.broken and self._socket is not None:
            self._hang_up(protocol.connection.broken, now)
        if self._finder is None and self._socket is None and protocol.wants_connection(now):
            try:
                self._finder = self._dialer.dial()
            except BrokerError as exc:
                protocol.failed(exc.code, str(exc), now)
            self._step_at = now
        if self._finder is not None and now >= self._step_at:
            self._step(self._finder, now)

    def _step(self, finder: RouteFinder, now: float) -> None:
        from ..route.attempt import Connected, Waiting

        step = finder.step()
        self._wait_fd = -1
        if isinstance(step, Waiting):
            self._step_at, self._wait_fd = now + step.seconds, step.fd
            return
        self._finder = None
        if not isinstance(step, Connected):
            self._protocol.failed(step.error.code, str(step.error), now)
            return
        self._socket = step.sock
        self._fd = step.sock.fileno()
        os.set_blocking(self._fd, False)
        assert self._dialer.context is not None, "no palace, no connection"
        self._protocol.connected(self._dialer.context.identity, self._dialer.view(step), now)

    def _hang_up(self, reason: str, now: float) -> None:
        self._close_socket()
        self._protocol.lost(reason, now)

    def _close_socket(self) -> None:
        sock, fd = self._socket, self._fd
        self._socket, self._fd = None, -1
        self._watch(fd, 0)
        if sock is not None:
            sock.close()

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
        """The broker takes nothing any more, but bytes that it sent before may still be in the socket."""
        try:
            while self._fd >= 0 and (data := self._read(self._fd)):
                self._protocol.broker_data(data, now)
                self._perform_effects(now)
        except OSError:
            pass  # whatever it is, the connection is given up in the next line
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

    def _flush_notices(self) -> None:
        """Write the notices to stderr, or drop them: a full pipe must not stop us."""
        if not self._protocol.notices:
            return
        notices = self._protocol.notices.copy()
        self._protocol.notices.clear()  # first: what can't be shown must not come again
        text = "".join(f"mp-shim: {shown(notice, _LONGEST_NOTICE)}\n" for notice in notices).encode()
        try:
            if self._err is None:
                self._err = DescriptorWriter(STDERR)
            self._err.write(text)
        except OSError:
            return  # nobody reads them

    # -- waiting

    def _timeout(self, now: float) -> float:
        due = min(self._protocol.next_deadline(now), self._private_at)
        if self._finder is not None:
            due = min(due, self._step_at)
        return max(0.0, min(due - now, _MAX_WAIT_S))

    def _watch(self, fd: int, mask: int) -> None:
        """Watch `fd` for `mask`; with 0 not at all, because poll reports a hang-up even unasked and would spin."""
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
        out = select.POLLOUT if protocol.to_agent.size else select.POLLERR  # reported anyway: the agent is gone
        self._watch(STDOUT, 0 if self._stdout_unwatchable else out)
        if self._fd >= 0:
            wanted = select.POLLIN if protocol.wants_broker else 0
            self._watch(self._fd, wanted | (select.POLLOUT if protocol.connection.to_broker.size else 0))
        waited = self._wait_fd  # in every poll until the next step, whatever the agent sends meanwhile
        if waited >= 0:
            self._poll.register(waited, select.POLLIN)
        try:
            events = self._poll.poll(seconds * 1000)
        finally:
            if waited >= 0:
                self._poll.unregister(waited)
        now = monotonic()
        for fd, event in events:
            if fd == STDIN:
                self._read_agent(now)
            elif fd == STDOUT and event & _GONE:
                raise AgentGone
            elif fd == STDOUT and event & select.POLLNVAL:  # macOS can't poll devices
                self._watch(STDOUT, 0)
                self._stdout_unwatchable = True
            elif fd == waited:
                self._step_at = now
            elif fd == self._fd and event & ~select.POLLOUT:
                self._read_broker(now)
        if self._hangup is not None and self._hangup.seen(events):
            raise AgentGone

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
