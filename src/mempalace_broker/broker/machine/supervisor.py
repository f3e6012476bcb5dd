"""The engine's life, as its supervisor sees it. Pure: time and randomness are handed in, effects are returned.

    DOWN --start--> LOCKING --lock--> STARTING --hello--> WARMING --ready--> READY
      LOCKING: an engine of an earlier broker still holds engine.lock; wait for it, then end it
      STARTING, WARMING, READY --end()--> STOPPING --grace--> KILLING --exit--> BACKOFF --time--> LOCKING
      exit by itself --> BACKOFF, or OPEN when the budget of starts is used up
      OPEN: calls fail at once with the reason; a probe after `probe_s` tries again, and `ready` closes the circuit
      FATAL: a fault no restart mends (no mempalace, bad palace); only `restart` leaves it

A start counts against the budget until the engine stayed up for `stable_s`. Ending an engine is per request and by
measured time, never by the lifetime of the process.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DOWN, LOCKING, STARTING, WARMING, READY = "down", "locking", "starting", "warming", "ready"
STOPPING, KILLING, BACKOFF, OPEN, FATAL = "stopping", "killing", "backoff", "open", "fatal"

# effects
SPAWN, TERM, KILL, KILL_ORPHAN = "spawn", "term", "kill", "kill_orphan"


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds and counts; `init_s` 0 means no limit on an engine's start."""

    init_s: float = 120.0
    term_grace_s: float = 2.0
    lock_poll_s: float = 0.05
    orphan_grace_s: float = 15.0
    backoff_base_s: float = 0.1
    backoff_cap_s: float = 5.0
    budget: int = 4
    window_s: float = 60.0
    stable_s: float = 30.0
    probe_s: float = 10.0


class Supervisor:
    """One engine slot. Every method returns the effects to carry out, in order."""

    def __init__(self, policy: Policy, rng: Callable[[], float]) -> None:
        self.policy = policy
        self.state = DOWN
        self.since = 0.0
        self.generation = 0
        self.restarts = 0
        self.pid = 0
        self.reason = ""
        self.hint = ""
        self._rng = rng
        self._deadline: float | None = None
        self._starts: deque[float] = deque()
        self._failures = 0
        self._locking_since = 0.0
        self._wanted = True
        self._verdict: tuple[str, str, bool] | None = None

    def _enter(self, state: str, now: float, deadline: float | None = None) -> None:
        self.state = state
        self.since = now
        self._deadline = deadline

    @property
    def alive(self) -> bool:
        """A process exists that is ours to reap."""
        return self.state in (STARTING, WARMING, READY, STOPPING, KILLING)

    @property
    def hopeless(self) -> bool:
        """Calls should fail at once instead of waiting."""
        return self.state in (OPEN, FATAL)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do next, or None."""
        return self._deadline

    def start(self, now: float) -> list[str]:
        """Bring an engine up; no effect where one is up or on its way."""
        self._wanted = True
        if self.state not in (DOWN, BACKOFF, OPEN, FATAL):
            return []
        self._locking_since = now
        self._enter(LOCKING, now, now + self.policy.lock_poll_s)
        return [SPAWN]

    def lock_busy(self, now: float, holder: str) -> list[str]:
        """engine.lock is held by `holder`; look again soon, and end that engine when its grace is over."""
        self.reason = f"waiting for the engine of an earlier broker ({holder}) to finish"
        self._deadline = now + self.policy.lock_poll_s
        if now - self._locking_since >= self.policy.orphan_grace_s:
            self._locking_since = now
            return [KILL_ORPHAN]
        return []

    def spawned(self, now: float, pid: int) -> list[str]:
        """The process exists."""
        self.generation += 1
        self.pid = pid
        self._verdict = None
        self._starts.append(now)
        self._enter(STARTING, now, now + self.policy.init_s if self.policy.init_s else None)
        return []

    def hello(self, now: float) -> list[str]:
        """mempalace is imported."""
        if self.state == STARTING:
            self._enter(WARMING, now, self._deadline)
        return []

    def ready(self, now: float) -> list[str]:
        """Warm-up is over: calls may go in. Closes an open circuit."""
        if self.state in (STARTING, WARMING):
            self.reason = self.hint = ""
            self._enter(READY, now, now + self.policy.stable_s)
        return []

    def failed(self, now: float, reason: str, hint: str, *, permanent: bool) -> list[str]:
        """The engine (or the attempt to start one) said why it can't serve."""
        self._verdict = (reason, hint, permanent)
        if self.alive:
            return []
        return self._after_exit(now)

    def end(self, now: float, reason: str, *, replace: bool = True) -> list[str]:
        """End this engine: TERM, grace, KILL. `replace` False: and start no other."""
        self._wanted = replace
        if self.state in (STARTING, WARMING, READY):
            self.reason = reason
            self._enter(STOPPING, now, now + self.policy.term_grace_s)
            return [TERM]
        if not self.alive:
            self._enter(self.state if replace else DOWN, now, self._deadline if replace else None)
        return []

    def exited(self, now: float, how: str) -> list[str]:
        """The process is reaped; `how` says by what status or signal."""
        asked = self.state in (STOPPING, KILLING)
        self.pid = 0
        if not asked or not self.reason:
            self.reason = f"the engine ended: {how}"
        self.restarts += 1
        return self._after_exit(now)

    def _after_exit(self, now: float) -> list[str]:
        verdict, self._verdict = self._verdict, None
        if not self._wanted:
            self._enter(DOWN, now)
            return []
        if verdict is not None:
            self.reason, self.hint, permanent = verdict
            if permanent:
                self._enter(FATAL, now)
            else:
                self._enter(OPEN, now, now + self.policy.probe_s)
            return []
        while self._starts and self._starts[0] <= now - self.policy.window_s:
            self._starts.popleft()
        self._failures += 1
        if len(self._starts) >= self.policy.budget:
            self.hint = "see `mempalace-broker logs` and `mempalace-broker doctor`"
            self._enter(OPEN, now, now + self.policy.probe_s)
            return []
        span = min(self.policy.backoff_cap_s, self.policy.backoff_base_s * 2 ** (self._failures - 1))
        self._enter(BACKOFF, now, now + span * (0.5 + 0.5 * self._rng()))
        return []

    def tick(self, now: float) -> list[str]:
        """Carry out what is due."""
        if self._deadline is None or now < self._deadline:
            return []
        if self.state == LOCKING:
            self._deadline = now + self.policy.lock_poll_s
            return [SPAWN]
        if self.state in (STARTING, WARMING):
            limit = f"the engine was not ready within {self.policy.init_s:g} s (MEMPALACE_MCP_INIT_TIMEOUT_MS)"
            return self.end(now, limit, replace=self._wanted)
        if self.state == READY:
            self._starts.clear()
            self._failures = 0
            self._deadline = None
            return []
        if self.state == STOPPING:
            self._enter(KILLING, now)
            return [KILL]
        if self.state in (BACKOFF, OPEN):
            return self.start(now)
        self._deadline = None
        return []
