"""When the engine is started, ended and replaced. Pure: time and randomness are handed in, actions are returned.

    DOWN --start--> LOCKING --lock--> STARTING --hello--> WARMING --ready--> READY
      LOCKING: an engine of an earlier broker still holds engine.lock; wait for it, then end it
      STARTING, WARMING, READY --end()--> STOPPING --grace--> KILLING --exit--> BACKOFF --time--> LOCKING
      exit by itself --> BACKOFF, or UNAVAILABLE when the budget of starts is used up
      UNAVAILABLE: calls fail at once with the reason; it is tried again after `probe_s`, or with a call after `look_s`
      FATAL: a fault no restart mends (no mempalace, bad palace): a call after `probe_s` looks whether a person has, or
      an upgrade that was under way

Starts count against the budget until an engine gets ready; those that `kill -9` ended, only where none has been ready
within the window: as long as one gets ready at all, it is replaced however often it is killed, and calls wait for it.
The pause before the next start grows with each death until an engine has worked: answered a call, or stayed up for
`stable_s`. Ending an engine is per request and by measured time, never by the lifetime of the process.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


KILLED = "killed by SIGKILL"  # how an engine ends that is ended from outside


class EngineState(StrEnum):
    """The states above; `broker/status` shows their values."""

    DOWN = "down"
    LOCKING = "locking"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    UNAVAILABLE = "unavailable"
    FATAL = "fatal"


class EngineAction(StrEnum):
    """What the supervisor wants done to the engine process; values are for the log."""

    SPAWN = "spawn"
    TERMINATE = "terminate"
    KILL = "kill"
    KILL_ORPHAN = "kill orphan"  # the engine of an earlier broker, which still holds engine.lock


_HAS_PROCESS = frozenset(
    {EngineState.STARTING, EngineState.WARMING, EngineState.READY, EngineState.STOPPING, EngineState.KILLING}
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds and counts; `init_s` 0 means no limit on an engine's start."""

    init_s: float = 120.0
    term_grace_s: float = 2.0
    lock_poll_s: float = 0.05
    command_poll_s: float = 0.1
    orphan_grace_s: float = 15.0
    backoff_base_s: float = 0.1
    backoff_cap_s: float = 5.0
    budget: int = 4
    window_s: float = 60.0
    stable_s: float = 30.0
    probe_s: float = 10.0
    look_s: float = 2.0


class Supervisor:
    """One engine slot. Events that may want something done return the actions to carry out, in order."""

    def __init__(self, policy: Policy, rng: Callable[[], float]) -> None:
        self.policy = policy
        self.state = EngineState.DOWN
        self.since = 0.0
        self.unavailable_since: float | None = None
        self.generation = 0
        self.restarts = 0
        self.pid = 0
        self.reason = ""
        self.hint = ""
        self.holder = ""  # a command that has engine.lock, in words
        self._rng = rng
        self._deadline: float | None = None
        self._starts: deque[float] = deque()
        self._failures = 0
        self._ready_until = float("-inf")
        self._killed = False
        self._waited = False  # `reason` says who had engine.lock
        self._locking_since = 0.0
        self._wanted = True
        self._fault: tuple[str, str, bool] | None = None

    def _enter(self, state: EngineState, now: float, deadline: float | None = None) -> None:
        self.state = state
        self.since = now
        self.holder = ""
        self._deadline = deadline

    @property
    def alive(self) -> bool:
        """Whether there is a process of ours to reap."""
        return self.state in _HAS_PROCESS

    @property
    def hopeless(self) -> bool:
        """Whether calls should fail at once instead of waiting."""
        return self.state in (EngineState.UNAVAILABLE, EngineState.FATAL)

    def next_deadline(self) -> float | None:
        """When to call `tick` next, or None."""
        return self._deadline

    def start(self, now: float) -> list[EngineAction]:
        """Bring an engine up, unless one is up or on its way."""
        self._wanted = True
        if self.state not in (EngineState.DOWN, EngineState.BACKOFF, EngineState.UNAVAILABLE, EngineState.FATAL):
            return []
        self._locking_since = now
        self._enter(EngineState.LOCKING, now, now + self.policy.lock_poll_s)
        return [EngineAction.SPAWN]

    def wake(self, now: float) -> list[EngineAction]:
        """A call came: bring an engine up if the last one was ended without another in its place; and look again if it
        could not be had, for what was in its way may be gone.
        """
        pauses = {EngineState.UNAVAILABLE: self.policy.look_s, EngineState.FATAL: self.policy.probe_s}
        look = now >= self.since + pauses.get(self.state, math.inf)
        return self.start(now) if look or not self._wanted else []

    def lock_busy(self, now: float, holder: str, *, is_engine: bool = True) -> list[EngineAction]:
        """Another process, `holder`, has engine.lock: look again soon, and kill it once its grace is over, if it
        `is_engine`; else it is a command that has the palace for itself, and has all the time it wants.
        """
        self._waited = True
        if not is_engine:
            self.holder = holder
            self.reason = f"{holder} has the palace for itself"
            self._locking_since = now
            self._deadline = now + self.policy.command_poll_s
            return []
        self.holder = ""
        self.reason = f"waiting for the engine of an earlier broker ({holder}) to finish"
        self._deadline = now + self.policy.lock_poll_s
        if now - self._locking_since >= self.policy.orphan_grace_s:
            self._locking_since = now
            return [EngineAction.KILL_ORPHAN]
        return []

    def spawned(self, now: float, pid: int) -> None:
        """The process was started."""
        self.generation += 1
        self.pid = pid
        self._fault = None
        self._starts.append(now)
        if self._waited:
            self.reason, self._waited = "", False
        self._enter(EngineState.STARTING, now, now + self.policy.init_s if self.policy.init_s else None)

    def hello(self, now: float) -> None:
        """mempalace is imported."""
        if self.state == EngineState.STARTING:
            self._enter(EngineState.WARMING, now, self._deadline)

    def ready(self, now: float) -> None:
        """Warm-up is over and calls may be sent."""
        if self.state in (EngineState.STARTING, EngineState.WARMING):
            self.reason = self.hint = ""
            self.unavailable_since = None
            self._ready_until = now
            self._starts.clear()
            self._enter(EngineState.READY, now, now + self.policy.stable_s)

    def worked(self) -> None:
        """It answered a call."""
        self._failures = 0

    def failed(self, now: float, reason: str, hint: str, *, permanent: bool) -> None:
        """The engine, or the attempt to start one, reported why it can't serve."""
        self._fault = (reason, hint, permanent)
        if not self.alive:
            self._after_exit(now)

    def end(self, now: float, reason: str, *, replace: bool = True) -> list[EngineAction]:
        """End this engine: SIGTERM, grace, SIGKILL. With `replace` False no other is started."""
        self._wanted = replace
        if self.state in (EngineState.STARTING, EngineState.WARMING, EngineState.READY):
            self.reason = reason
            self._enter(EngineState.STOPPING, now, now + self.policy.term_grace_s)
            return [EngineAction.TERMINATE]
        if not self.alive:
            self._enter(self.state if replace else EngineState.DOWN, now, self._deadline if replace else None)
        return []

    def exited(self, now: float, how: str) -> None:
        """The process was reaped; `how` names its exit status or signal."""
        asked = self.state in (EngineState.STOPPING, EngineState.KILLING)
        self._killed = how.startswith(KILLED)
        if self.state == EngineState.READY:
            self._ready_until = now
        self.pid = 0
        if not asked or not self.reason:
            self.reason = f"the engine ended: {how}"
        self.restarts += 1
        self._after_exit(now)

    def _after_exit(self, now: float) -> None:
        fault, self._fault, self._waited = self._fault, None, False
        while self._starts and self._starts[0] <= now - self.policy.window_s:
            self._starts.popleft()
        if not self._wanted:
            self._enter(EngineState.DOWN, now)
        elif fault is not None:
            self.reason, self.hint, permanent = fault
            if permanent:
                self._enter(EngineState.FATAL, now)
            else:
                self._become_unavailable(now)
        elif len(self._starts) >= self.policy.budget and not self._is_bad_luck(now):
            self.reason = f"{len(self._starts)} starts failed within {self.policy.window_s:g} s; {self.reason}"
            self.hint = "see `mempalace-broker logs` and `mempalace-broker doctor`"
            self._become_unavailable(now)
        else:
            span = min(self.policy.backoff_cap_s, self.policy.backoff_base_s * 2**self._failures)
            self._failures += 1
            self._enter(EngineState.BACKOFF, now, now + span * (0.5 + 0.5 * self._rng()))

    def _is_bad_luck(self, now: float) -> bool:
        """Whether somebody keeps killing engines that get ready when they are let."""
        return self._killed and now < self._ready_until + self.policy.window_s

    def _become_unavailable(self, now: float) -> None:
        if self.unavailable_since is None:
            self.unavailable_since = now
        self._enter(EngineState.UNAVAILABLE, now, now + self.policy.probe_s)

    def tick(self, now: float) -> list[EngineAction]:
        """Handle a deadline that has passed."""
        if self._deadline is None or now < self._deadline:
            return []
        if self.state == EngineState.LOCKING:
            self._deadline = now + self.policy.lock_poll_s
            return [EngineAction.SPAWN]
        if self.state in (EngineState.STARTING, EngineState.WARMING):
            limit = f"the engine was not ready within {self.policy.init_s:g} s (MEMPALACE_MCP_INIT_TIMEOUT_MS)"
            return self.end(now, limit, replace=self._wanted)
        if self.state == EngineState.STOPPING:
            self._enter(EngineState.KILLING, now)
            return [EngineAction.KILL]
        if self.state in (EngineState.BACKOFF, EngineState.UNAVAILABLE):
            return self.start(now)
        assert self.state == EngineState.READY, "no other state has a deadline"
        self._failures = 0
        self._deadline = None
        return []
