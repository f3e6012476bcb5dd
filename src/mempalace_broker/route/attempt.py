"""What an attempt to reach a broker is: it goes on in steps, never blocks, and ends Connected or Failed.

Every route is an `Attempt`, and so is the RouteFinder that tries one route after the other. The shim steps it from its
poll loop; `run` steps it for programs that may block. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import BrokerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as RawSocket

    from ..system.clock import Clock, Deadline


class StartMode(str):
    """How far to go."""

    __slots__ = ()


START_IF_NEEDED = StartMode("start")  # dial, wait, start a broker where none is
WAIT_ONLY = StartMode("wait")  # the same without starting one: somebody else will
ONCE = StartMode("once")  # look once: there is a broker now, or there is none


class StartPolicy:
    """Whether an attempt may start a daemon, and in whose name.

    Attributes:
        mode: how far to go.
        started_by: who asks, for the daemon's log: "mp-shim 0.1.0 pid 77".
        heed_failures: take the failure of a start that others tried a moment ago for our own. False for a
            person who has just fixed something.
    """

    __slots__ = ("heed_failures", "mode", "started_by")

    def __init__(self, mode: StartMode = START_IF_NEEDED, started_by: str = "", *, heed_failures: bool = True) -> None:
        self.mode = mode
        self.started_by = started_by or f"pid {os.getpid()}"
        self.heed_failures = heed_failures

    def with_mode(self, mode: StartMode) -> StartPolicy:
        """The same with another mode."""
        return StartPolicy(mode, self.started_by, heed_failures=self.heed_failures)


class Connected:
    """Done: a connected, non-blocking stream socket, the caller's to close. Nothing was said on it yet.

    Attributes:
        endpoint: the socket's path, or "ssh://..." or "tcp://...".
        started: whether this attempt started the broker.
    """

    __slots__ = ("endpoint", "sock", "started")

    def __init__(self, sock: RawSocket, endpoint: str, started: bool) -> None:
        self.sock = sock
        self.endpoint = endpoint
        self.started = started

    @property
    def remote(self) -> bool:
        """Whether the connection leads to another machine, as far as we know."""
        return "://" in self.endpoint


class Waiting:
    """Not yet: call `step` again after `seconds`, or as soon as `fd` (if not -1) becomes readable.

    Attributes: seconds, fd; why: what is being waited for, in words.
    """

    __slots__ = ("fd", "seconds", "why")

    def __init__(self, seconds: float, fd: int, why: str) -> None:
        self.seconds = seconds
        self.fd = fd
        self.why = why


class Failed:
    """Given up: `error` says what was tried and what helps. The attempt is spent."""

    __slots__ = ("error",)

    def __init__(self, error: BrokerError) -> None:
        self.error = error


class Attempt:
    """One attempt, resumable. Routes implement `_step` and `close`.

    Args:
        deadline: of the whole attempt. At least one step is taken even if it has passed already.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.why = ""  # what is being waited for, in words
        self._deadline = deadline
        self._clock: Clock = deadline.clock
        self._error: BrokerError | None = None

    def step(self) -> Connected | Waiting | Failed:
        """Do what can be done without waiting. Never raises a BrokerError: it returns Failed."""
        try:
            if self._error is None:
                return self._step()
        except BrokerError as exc:
            self.close()
            self._error = exc
        return Failed(self._error)

    def run(self) -> Connected:
        """Step to the end, blocking, and close; the socket is still non-blocking.

        Raises:
            BrokerError: the attempt failed.
        """
        try:
            while True:
                found = self.step()
                if isinstance(found, Connected):
                    return found
                if isinstance(found, Failed):
                    raise found.error
                self._block(found)
        finally:
            self.close()

    def close(self) -> None:
        """Give up."""

    def _step(self) -> Connected | Waiting:
        raise NotImplementedError

    def _block(self, waiting: Waiting) -> None:
        if waiting.fd < 0:
            self._clock.sleep(waiting.seconds)
            return
        import select

        poller = select.poll()
        poller.register(waiting.fd, select.POLLIN)
        poller.poll(waiting.seconds * 1000 + 1)
