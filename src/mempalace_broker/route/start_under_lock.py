"""Find a daemon by its socket, or start one: how a hundred clients at once get one daemon.

    look           somebody listens: connected. Nobody does: try the start lock without blocking
    lock held      another client starts the daemon: pause with jitter, look again
    lock obtained  look once more; is the daemon's own lock held? then it starts or leaves: pause, look again
                   else spawn one, keep the lock, and listen on its start pipe
    start pipe     ready: free the lock, look again. Lost the race: pause, look again. Died: spawn again, three times
                   at most. Failed: leave the reason in a private file for those who wait, and fail

`UnixRoute` starts brokers this way and `SshRoute` bridges. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import BrokerError, StartFailed
from ..system.clock import Deadline, fraction
from .attempt import ONCE, Attempt, Connected, Waiting
from .machine.election import LOCK_FREE, LOCK_HELD, LOCK_OBTAINED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..system.lock import FileLock
    from ..system.paths import StateFiles
    from ..system.spawn import StartPipe
    from .attempt import StartPolicy
    from .bridge.files import BridgeFiles
    from .machine.election import LockSeen

PAUSE_BASE_S = 0.010
PAUSE_CAP_S = 0.200
START_LIMIT_S = 30.0  # for the daemon's report
MAX_STARTS = 3  # by one client: one daemon that was killed while it started is bad luck, three are a crash loop


class Daemon:
    """What is to be found or started.

    Attributes:
        name: for messages: "broker". owns: what its lock stands for: "the palace".
        files: with the lock that a client holds while it starts the daemon, and the note of a start that failed.
        lock: the file that the daemon holds for life.
        hint: the step that tells more, where it does not come up.
    """

    __slots__ = ("files", "hint", "lock", "name", "owns")

    def __init__(self, name: str, owns: str, files: StateFiles | BridgeFiles, *, lock: str, hint: str) -> None:
        self.name = name
        self.owns = owns
        self.files = files
        self.lock = lock
        self.hint = hint


class StartUnderLock(Attempt):
    """Reach a daemon, and start it if need be. Routes implement the hooks below.

    Args:
        daemon: which. deadline: of the whole attempt. policy: whether to start one, and in whose name.
        rng: draws from [0, 1).
    """

    hear_s = START_LIMIT_S  # between two looks for another daemon, while the one that we started does not report

    def __init__(
        self, daemon: Daemon, deadline: Deadline, policy: StartPolicy, *, rng: Callable[[], float] | None = None
    ) -> None:
        super().__init__(deadline)
        self._daemon = daemon
        self._policy = policy
        self._rng = rng or fraction
        self._lock: FileLock | None = None
        self._pipe: StartPipe | None = None
        self._pipe_limit = deadline
        self._started = False
        self._starts = 0
        self._pauses = 0
        self._not_before = 0.0

    # -- what a route adds

    def _look(self, lock: LockSeen) -> Connected | Waiting | None:
        """Dial once. None: nobody listens, so the next step is the start lock, or the start if we hold it.

        Args:
            lock: what we know of the start lock.
        """
        raise NotImplementedError

    def _spawn_daemon(self) -> StartPipe:
        """Start one."""
        raise NotImplementedError

    def _served_meanwhile(self) -> Connected | None:
        """Another daemon, where one serves while ours does not report."""
        return None

    def _unavailable(self, why: str) -> BrokerError:
        """The error at the end of our time."""
        raise NotImplementedError

    # -- the machine

    def close(self) -> None:
        """Give up: free the start lock, stop listening to a start under way (that daemon goes on)."""
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
        return self._look(LOCK_FREE) or self._look(self._take_lock()) or self._start()

    def _take_lock(self) -> LockSeen:
        """Try the start lock without blocking."""
        from ..system.lock import FileLock

        if self._lock is not None:
            return LOCK_OBTAINED
        self._daemon.files.prepare()
        lock = FileLock(self._daemon.files.start_lock)
        if not lock.try_acquire():
            return LOCK_HELD
        self._lock = lock
        return LOCK_OBTAINED

    def _start(self) -> Connected | Waiting:
        """We hold the start lock and nobody listens: spawn a daemon, unless that is known to be in vain."""
        from ..system.lock import is_held
        from ..system.lock_notes import read_pid, write_starter
        from ..system.start_failure import forget_failure, recent_failure

        daemon = self._daemon
        if is_held(daemon.lock):
            pid = read_pid(daemon.lock) or "unknown"
            return self._pause(f"a {daemon.name} (pid {pid}) owns {daemon.owns} but does not listen yet, or no longer")
        if self._starts == MAX_STARTS:
            raise self._blamed(f"the {daemon.name} comes up and is gone at once{self._log_hint()}.", daemon.hint)
        failed = daemon.files.start_failure
        failure = recent_failure(failed, self._clock.wall()) if self._policy.heed_failures else None
        if failure is not None:
            raise failure
        forget_failure(failed)
        if self._lock is not None:
            write_starter(self._lock, os.getpid())
        self._starts += 1
        self._pipe = self._spawn_daemon()
        self._pipe_limit = Deadline.after(self._clock, START_LIMIT_S)
        return self._hear(self._pipe) or self._step()

    def _hear(self, pipe: StartPipe) -> Connected | Waiting | None:
        """Has the daemon that we started reported? None: it serves, look again."""
        from ..system.spawn import DIED, LOST_RACE, READY

        daemon, starting = self._daemon, f"a {self._daemon.name} is starting"
        report = pipe.poll()
        if report is None and not (self._pipe_limit.expired or self._deadline.expired):
            self.why = starting
            left = min(self._pipe_limit.remaining(), self._deadline.remaining())
            return Waiting(min(left, self.hear_s), pipe.fd, starting)
        self._pipe = None
        pipe.close()
        if report is None and not self._pipe_limit.expired:
            return self._pause(starting)  # our time is up, not the daemon's: it has not failed
        if report is None:
            raise self._blamed(f"the {daemon.name} did not report that it serves{self._log_hint()}.", daemon.hint)
        if report.state == READY:
            self._started = True
            self._unlock()
            return None
        if report.state == LOST_RACE:
            self._starts -= 1
            return self._pause(f"another {daemon.name} won {daemon.owns} and does not listen yet")
        if report.state == DIED and self._starts < MAX_STARTS:
            return self._look(LOCK_OBTAINED) or self._start()  # the lock is still ours: nobody comes in between
        reason = report.reason or "it did not say why"
        log = "" if daemon.files.log in reason else self._log_hint()
        raise self._blamed(f"the {daemon.name} could not start: {reason}{log}", report.hint)

    def _log_hint(self) -> str:
        log = self._daemon.files.log  # "" where there is no private folder
        return f" (log: {log})" if log else ""

    def _blamed(self, message: str, hint: str) -> StartFailed:
        """The failure, which is also left for those who wait for this start."""
        from ..system.start_failure import note_failure

        error = StartFailed(message, hint=hint)
        if self._lock is not None:
            note_failure(self._daemon.files.start_failure, error, self._clock.wall())
        return error

    def _pause(self, why: str) -> Waiting:
        """Nothing to do now: let go of the lock, come back later; or give up if this was the last look."""
        self._unlock()
        self.why = why
        if self._policy.mode == ONCE or self._deadline.expired:
            raise self._unavailable(why)
        from ..protocol.backoff import backoff  # late: with a running broker there is no pause

        pause = backoff(self._pauses, base=PAUSE_BASE_S, cap=PAUSE_CAP_S, rng=self._rng)
        self._pauses += 1
        self._not_before = self._clock.monotonic() + pause
        return Waiting(min(pause, self._deadline.remaining()), -1, why)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
