"""From "I want the broker of this palace" to a connected socket: dial, else start one, else wait and dial
again.

A machine that never blocks: `step()` does what can be done at once and says what to wait for, so that the
shim's poll loop stays free; route/finder runs it, and other routes where the palace is another kernel's. What to
do next is decided by route/machine/election alone. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import BrokerError, BrokerUnavailable, StartFailed
from ..protocol.backoff import backoff
from ..protocol.record import BadRecord
from ..system.clock import Deadline, fraction
from ..system.paths import state_files
from .dial import dial
from .discover import ENDPOINT_VARIABLE, NO_SPAWN_VARIABLE, fixed_path, look, record_state
from .machine.election import (
    AVOID,
    CONNECT_ENOENT,
    CONNECT_OK,
    CONNECT_REFUSED,
    GREET,
    LOCK_FREE,
    LOCK_HELD,
    LOCK_OBTAINED,
    RECORD_ABSENT,
    START,
    TAKE_LOCK,
    WAIT,
    decide,
    strongest,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as RawSocket
    from collections.abc import Callable, Mapping

    from ..protocol.palace import PalaceIdentity
    from ..system.clock import Clock
    from ..system.lock import FileLock
    from ..system.paths import StateFiles
    from ..system.spawn import StartPipe
    from .finder import RouteFinder

# How far to go
START_IF_NEEDED = "start"  # dial, wait, start a broker where none is
WAIT_ONLY = "wait"  # the same without starting one: somebody else will
ONCE = "once"  # look once: there is a broker now, or there is none

PAUSE_BASE_S = 0.010
PAUSE_CAP_S = 0.200
HEAR_S = 0.1  # between two looks for another broker, while the one that we started does not report
START_LIMIT_S = 30.0  # for the broker's report: it binds and reports before its engine starts
MAX_STARTS = 3  # by one client: one that was killed while it started is no reason to fail, a crash loop is
_STARTING = "a broker is starting"
_STATUS = "mempalace-broker status"


class Connected:
    """Done: a connected, non-blocking unix stream socket, the caller's to close. No word was said on it yet."""

    __slots__ = ("endpoint", "sock", "started")

    def __init__(self, sock: RawSocket, endpoint: str, started: bool) -> None:
        self.sock = sock
        self.endpoint = endpoint
        self.started = started  # by us, just now


class Waiting:
    """Not yet: call `step` again after `seconds`, or as soon as `fd` (if not -1) becomes readable. `why`: for
    people.
    """

    __slots__ = ("fd", "seconds", "why")

    def __init__(self, seconds: float, fd: int, why: str) -> None:
        self.seconds = seconds
        self.fd = fd
        self.why = why


class Failed:
    """Given up: `error` says what was tried and what mends it. The connector is spent."""

    __slots__ = ("error",)

    def __init__(self, error: BrokerError) -> None:
        self.error = error


class Attempt:
    """What goes on in steps until it is connected or has failed; `_step` and `close` are each one's own."""

    _error: BrokerError | None = None

    def step(self) -> Connected | Waiting | Failed:
        """Do what can be done without waiting. Never raises a BrokerError: it returns Failed."""
        try:
            if self._error is None:
                return self._step()
        except BrokerError as exc:
            self.close()
            self._error = exc
        return Failed(self._error)

    def close(self) -> None:
        """Give up."""

    def _step(self) -> Connected | Waiting:
        raise NotImplementedError


class UnixRoute(Attempt):
    """One attempt to reach the broker of one palace, resumable.

    Args:
        identity: the palace and how it was chosen.
        env: environment variables; MEMPALACE_BROKER names an endpoint beside which nothing else is tried,
            MEMPALACE_BROKER_NO_SPAWN=1 turns START_IF_NEEDED into WAIT_ONLY.
        deadline: of the whole attempt. At least one look is taken even if it is over already.
        mode: START_IF_NEEDED, WAIT_ONLY or ONCE.
        started_by: who wants it, for the broker's log: "mp-shim 0.1.0 pid 77".
        files: state files to use instead of the palace's own. direct: the broker to start opens a palace that
            belongs to another kernel; its lease decides, not the place.
        heed_failures: take the failure of a start that others tried a moment ago for our own. False for a
            person who has just mended something.
        rng: draws from [0, 1). spawn: `start.start_broker`, replaceable in tests.
    """

    def __init__(
        self,
        identity: PalaceIdentity,
        env: Mapping[str, str],
        deadline: Deadline,
        *,
        mode: str = START_IF_NEEDED,
        started_by: str = "",
        heed_failures: bool = True,
        rng: Callable[[], float] = fraction,
        spawn: Callable[..., StartPipe] | None = None,
        files: StateFiles | None = None,
        direct: bool = False,
    ) -> None:
        self.files: StateFiles = files or state_files(identity, env)
        self._direct = direct
        self.why = ""
        self._identity = identity
        self._env = env
        self._deadline = deadline
        self._clock: Clock = deadline.clock
        no_spawn = env.get(NO_SPAWN_VARIABLE, "") not in ("", "0")
        self._mode = WAIT_ONLY if no_spawn and mode == START_IF_NEEDED else mode
        self._started_by = started_by or f"pid {os.getpid()}"
        self._heed_failures = heed_failures
        self._rng = rng
        self._spawn = spawn
        self._lock: FileLock | None = None
        self._pipe: StartPipe | None = None
        self._pipe_limit = deadline
        self._started = False
        self._starts = 0
        self._pauses = 0
        self._not_before = 0.0
        self._words = ""  # what the system said to the last dial that mattered
        self._place_checked = False

    def close(self) -> None:
        """Give up: free start.lock, stop listening to a start under way (that broker goes on)."""
        self._unlock()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _step(self) -> Connected | Waiting:
        if self._pipe is not None:
            waiting = self._hear(self._pipe)
            if waiting is not None:
                return self._served_meanwhile() or waiting
        left = self._not_before - self._clock.monotonic()
        if left > 0 and not self._deadline.expired:
            return Waiting(min(left, self._deadline.remaining()), -1, self.why)
        fixed = fixed_path(self._env)
        if fixed is not None:
            return self._look_fixed(fixed)
        found = self._look(LOCK_FREE)
        if found is None:
            found = self._look(self._take_lock())
        return found or self._pause("the start lock changed hands")

    def _look_fixed(self, path: str) -> Connected | Waiting:
        """$MEMPALACE_BROKER: dial that and nothing else, start nothing."""
        _, sock, words = dial(path)
        if sock is not None:
            return self._done(sock, path)
        return self._pause(f"${ENDPOINT_VARIABLE} names {path}, where nobody answers ({words})")

    def _look(self, lock: str) -> Connected | Waiting | None:
        """One observation and its action; None: the lock must be tried, then look again."""
        candidates = look(self.files, self._env)
        outcome, sock, path = self._dial_all(candidates.paths)
        nobody = outcome in (CONNECT_REFUSED, CONNECT_ENOENT)
        if nobody:
            self._check_place()
        record = record_state(candidates, self.files) if nobody else RECORD_ABSENT  # matters only then
        action = decide(lock=lock, record=record, connect=outcome)
        if action == GREET and sock is not None:
            return self._done(sock, path)
        if action == TAKE_LOCK and self._mode == START_IF_NEEDED:
            return None
        if action == START:
            return self._start()
        if action in (WAIT, TAKE_LOCK):
            return self._pause(self._reason(nobody))
        raise self._refusal(action)

    def _check_place(self) -> None:
        """Nobody answers: does that prove anything here? Behind a kernel boundary it proves nothing."""
        if self._direct or self._place_checked:
            return
        from ..locality.locality import elsewhere, place_of

        place = place_of(self.files, self._identity.graph)
        if place.foreign:
            raise elsewhere(place)
        self._place_checked = True

    def _dial_all(self, paths: list[str]) -> tuple[str, RawSocket | None, str]:
        """Dial until one accepts: (outcome of all, socket, its path)."""
        outcomes: list[str] = []
        for path in paths:
            outcome, sock, words = dial(path)
            if sock is not None:
                return CONNECT_OK, sock, path
            outcomes.append(outcome)
            if outcome == strongest(outcomes):
                self._words = f"{path}: {words}"
        return strongest(outcomes), None, ""

    def _take_lock(self) -> str:
        """Try start.lock without blocking."""
        from ..system.lock import FileLock

        self.files.prepare()
        lock = FileLock(self.files.start_lock)
        if not lock.try_acquire():
            return LOCK_HELD
        self._lock = lock
        return LOCK_OBTAINED

    def _start(self) -> Connected | Waiting:
        """We hold start.lock and nobody listens: spawn a broker, unless that is known to be in vain."""
        from ..system.lock import is_held
        from ..system.lock_notes import read_note
        from .start import note_starter, recent_failure, start_broker

        if self._starts == MAX_STARTS:
            raise self._blamed(
                StartFailed(f"the broker comes up and is gone at once (log: {self.files.log}).", hint=_STATUS)
            )
        failure = recent_failure(self.files.start_lock, self._clock) if self._heed_failures else None
        if failure is not None:
            raise failure
        if is_held(self.files.owner_lock):
            pid = read_note(self.files.owner_lock).get("pid", "unknown")
            return self._pause(f"a broker (pid {pid}) owns the palace but does not listen yet, or no more")
        if self._lock is not None:
            note_starter(self._lock, self._clock)
        spawn = self._spawn or start_broker
        self._starts += 1
        extra = {"direct": True} if self._direct else {}
        self._pipe = spawn(self._identity, self.files, self._env, started_by=self._started_by, **extra)
        self._pipe_limit = Deadline.after(self._clock, START_LIMIT_S)
        return self._hear(self._pipe) or self._step()

    def _hear(self, pipe: StartPipe) -> Connected | Waiting | None:
        """Has the broker that we started reported? None: it serves, dial it."""
        from ..system.spawn import LOST_RACE, READY
        from .start import failure_of

        report = pipe.poll()
        if report is None and not (self._pipe_limit.expired or self._deadline.expired):
            self.why = _STARTING
            left = min(self._pipe_limit.remaining(), self._deadline.remaining())
            return Waiting(min(left, HEAR_S), pipe.fd, self.why)
        self._pipe = None
        pipe.close()
        if report is None and not self._pipe_limit.expired:
            return self._pause(_STARTING)  # our time is up, not the broker's: no failure of its
        if report is None:
            raise self._blamed(
                StartFailed(f"the broker did not report that it serves (log: {self.files.log}).", hint=_STATUS)
            )
        if report["state"] == READY:
            self._started = True
            self._unlock()
            return None
        if report["state"] == LOST_RACE:
            self._starts -= 1
            return self._pause("another broker won the palace and does not listen yet")
        if report.get("died") and self._starts < MAX_STARTS:
            return self._look(LOCK_OBTAINED)  # the lock is still ours: nobody comes in between
        raise self._blamed(failure_of(report, self.files.log))

    def _served_meanwhile(self) -> Connected | None:
        """Another broker may serve while ours waits for the palace in vain: its starter was killed, and the start
        lock gone with it, before it could serve. The TypeScript SDK kills its probe so and comes again at once.
        """
        if self._pipe is None:
            return None
        candidates = look(self.files, self._env)
        if isinstance(candidates.record, BadRecord):
            return None  # whoever serves publishes its record at once; it says whether it is ours
        outcome, sock, path = self._dial_all(candidates.paths)
        if outcome != CONNECT_OK or sock is None:
            return None
        self._started = candidates.record.started_by == self._started_by
        self.close()
        return self._done(sock, path)

    def _blamed(self, error: StartFailed) -> StartFailed:
        """Leave the failure in start.lock for those who wait for this start."""
        from .start import note_failure

        try:
            if self._lock is not None:
                note_failure(self._lock, self._clock, error)
        except BrokerError:
            pass  # a full disk must not hide why the broker did not start
        return error

    def _done(self, sock: RawSocket, path: str) -> Connected:
        self._unlock()
        self.why = ""
        return Connected(sock, path, self._started)

    def _pause(self, why: str) -> Waiting:
        """Nothing to do now: let go of the lock, come back later; or give up if this was the last look."""
        self._unlock()
        self.why = why
        if self._mode == ONCE or self._deadline.expired:
            raise self._unavailable(why)
        pause = backoff(self._pauses, base=PAUSE_BASE_S, cap=PAUSE_CAP_S, rng=self._rng)
        self._pauses += 1
        self._not_before = self._clock.monotonic() + pause
        return Waiting(min(pause, self._deadline.remaining()), -1, why)

    def _reason(self, nobody: bool) -> str:
        if not nobody:
            return f"a broker owns this socket but does not accept ({self._words})"
        if self._mode == START_IF_NEEDED:
            from ..system.lock_notes import StartNote

            pid = StartNote.read(self.files.start_lock).pid or "unknown"
            return f"another client (pid {pid}) is starting the broker"
        return f"nobody listens ({self._words})"

    def _unavailable(self, why: str) -> BrokerUnavailable:
        hint = _STATUS
        if self._mode == WAIT_ONLY and ENDPOINT_VARIABLE not in self._env:
            hint = f"start one with `mempalace-broker ensure`, or unset {NO_SPAWN_VARIABLE}."
        elif self._mode == ONCE:
            hint = "mempalace-broker ensure"
        elif self._env.get(ENDPOINT_VARIABLE):
            hint = f"start the broker that listens there, or unset {ENDPOINT_VARIABLE}."
        return BrokerUnavailable(f"no broker for {self._identity.path}: {why}.", hint=hint)

    def _refusal(self, action: str) -> BrokerUnavailable:
        if action == AVOID:
            return BrokerUnavailable(
                f"{self.files.record} was written on another machine or virtual machine, whose broker "
                f"may be alive and can't be reached from here ({self._words}).",
                hint=f"stop that broker; if there is none any more, remove {self.files.record}.",
            )
        return BrokerUnavailable(f"not allowed: {self._words}.", hint="run the agent as the owner of the palace.")

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def complete(machine: UnixRoute | RouteFinder, clock: Clock) -> Connected:
    """Step a machine to its end, blocking, and close it.

    Returns:
        the connection; its socket is still non-blocking.

    Raises:
        BrokerError: as it failed.
    """
    try:
        while True:
            found = machine.step()
            if isinstance(found, Connected):
                return found
            if isinstance(found, Failed):
                raise found.error
            _wait(clock, found)
    finally:
        machine.close()


def _wait(clock: Clock, waiting: Waiting) -> None:
    if waiting.fd < 0:
        clock.sleep(waiting.seconds)
        return
    import select

    poller = select.poll()
    poller.register(waiting.fd, select.POLLIN)
    poller.poll(waiting.seconds * 1000 + 1)
