"""The engine side of the hub: which call goes in, what comes out, and what a death of the engine means for each call.

Owns scheduler, supervisor and outcomes. Bytes for clients leave through `reply`, everything else as effects.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol.engine_frames import (
    BEGUN,
    CALL,
    DONE,
    FAIL,
    HELLO,
    IMPORT_FAILED,
    NO_MEMPALACE,
    PREFETCH,
    READY,
    WRITE_LOCK_HELD,
    Frame,
)
from ...protocol.journal import KEEP_BYTES
from ...protocol.jsonrpc import error_line
from . import supervisor as sv
from .effects import Effect, Engine, Log, SaveAnswers, ToEngine
from .outcomes import Outcomes
from .replay import AGAIN, ANSWER, POISON, after_death, settle_replayed
from .scheduler import SENT, Call, Limits, Scheduler
from .supervisor import Policy, Supervisor
from .tool_audit import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .answers import Answers

STALE_LIBRARY = -32005  # mempalace: the package was upgraded underneath the running process
_UPGRADE_FAULTS = frozenset({NO_MEMPALACE, IMPORT_FAILED})  # what is seen while the package is being replaced
_PASSING_FAULTS = frozenset({WRITE_LOCK_HELD})
_DOWN_HINT = "Hint: `mempalace-broker doctor` says what is wrong; `mempalace-broker logs` shows the engine's own words."


class Dispatcher:
    """See the module. `reply(call, line)` takes a whole line and is called once per call that is to be answered."""

    def __init__(
        self,
        *,
        limits: Limits,
        policy: Policy,
        rng: Callable[[], float],
        answers: Answers,
        effects: list[Effect],
        reply: Callable[[Call, bytes], None],
    ) -> None:
        self.permit: Callable[[], bool] = lambda: True  # asked before anything goes into an engine
        self.limits = limits
        self.scheduler = Scheduler(limits)
        self.supervisor = Supervisor(policy, rng)
        self.outcomes = Outcomes()
        self.answers = answers
        self.settled = False
        self._was_ready = False
        self.degraded: list[dict[str, str]] = []
        self.engine: dict[str, Any] = {}
        self.counters = dict.fromkeys(("errors", "timeouts", "unknown_outcomes", "engine_restarts", "replayed"), 0)
        self.holding = False  # draining: nothing more goes in
        self._effects = effects
        self._reply = reply

    # -- calls

    def submit(self, call: Call, now: float) -> None:
        """Take a call, or answer at once where no engine can come."""
        if self.supervisor.hopeless:
            self._fail(call, errors.ENGINE_DOWN, f"not executed: {self.why_down()}")
            return
        self.scheduler.submit(call)
        self.pump(now)

    def why_down(self) -> str:
        """Why calls can't run at present, with the hint."""
        state, reason, hint = self.supervisor.state, self.supervisor.reason, self.supervisor.hint
        text = f"the mempalace engine is {state}: {reason or 'no reason known'}."
        return f"{text} Hint: {hint}." if hint else f"{text} {_DOWN_HINT}"

    def pump(self, now: float) -> None:
        """Send to the engine whatever may go in now."""
        if self.supervisor.state != sv.READY or self.holding:
            return
        calls = self.scheduler.dispatch(now)
        if calls and not self.permit():
            self._take_back(calls, now)
            return
        for call in calls:
            key = call.key if call.writes else "-"
            self._effects.append(ToEngine(Frame(CALL, call.n, call.rule.lane, key, call.raw).encode()))
        for call in self.scheduler.hints():
            self._effects.append(ToEngine(Frame(PREFETCH, call.n, call.rule.lane, "-", call.raw).encode()))

    def _take_back(self, calls: list[Call], now: float) -> None:
        """The palace is no longer ours: these wait on, untouched, and nothing more goes in."""
        self.holding = True
        for call in calls:
            self.scheduler.finish(call.n)
            call.attempts -= 1
        self.scheduler.requeue(calls, now)

    @property
    def resting(self) -> bool:
        """Nothing is in the engine, and it does nothing by itself: it is up and idle, or not there at all."""
        state = self.supervisor.state
        return not self.scheduler.running and (state == sv.READY or not self.supervisor.alive)

    def _answer(self, call: Call, line: bytes) -> None:
        if not call.answered:
            call.answered = True
            self._reply(call, line)

    def _fail(self, call: Call, code: int, text: str) -> None:
        if not call.answered:
            self.counters["errors"] += 1
            self.counters["unknown_outcomes"] += code == errors.OUTCOME_UNKNOWN
        self._answer(call, error_line(call.id, code, text))

    def fail_waiting(self, call: Call, code: int, text: str) -> None:
        """Answer a call that was withdrawn: not executed, unless an engine died in the middle of it."""
        if call.writes and call.may_have_run:
            why = "an engine died while it ran, and it could not be run again"
            self._fail(call, errors.OUTCOME_UNKNOWN, f"{why}. {unknown_text(call)}")
        else:
            self._fail(call, code, text)

    def abandon(self, call: Call, text: str) -> None:
        """Answer a call because the broker leaves: `text` says that it was not executed."""
        if call.state == SENT and call.writes:
            why = "the broker is leaving while the engine runs"
            self._fail(call, errors.OUTCOME_UNKNOWN, f"{why} {unknown_text(call)}")
        else:
            self.scheduler.withdraw(call)
            self.fail_waiting(call, errors.NOT_EXECUTED, text)

    # -- engine events

    def _do(self, whats: list[str]) -> None:
        self._effects.extend(Engine(what) for what in whats)

    def start(self, now: float) -> None:
        """Want an engine."""
        self._do(self.supervisor.start(now))

    def journal(self, ended: Mapping[str, bytes | None], begun: Collection[str], now: float, covered: float) -> None:
        """The journal as earlier brokers left it; told once, when no engine of theirs can add to it any more."""
        refused = {key for key, response in ended.items() if response is not None and _is_stale(response)}
        proved = {key: response for key, response in ended.items() if key not in refused}
        self.outcomes.load(proved, refused.union(begun), now, covered)
        self.settled = True

    def lock_busy(self, now: float, holder: str) -> None:
        """Another broker's engine still lives."""
        self._do(self.supervisor.lock_busy(now, holder))

    def spawned(self, now: float, pid: int) -> None:
        """The child process exists."""
        self._do(self.supervisor.spawned(now, pid))

    def unstartable(self, now: float, reason: str, hint: str, *, permanent: bool) -> None:
        """No child could be made."""
        self._do(self.supervisor.failed(now, reason, hint, permanent=permanent))
        self._flush_if_hopeless()

    def frame(self, frame: Frame, now: float) -> None:
        """One frame of the engine."""
        if frame.verb == DONE:
            self._done(frame, now)
        elif frame.verb == HELLO:
            self._hello(_object(frame.payload), now)
        elif frame.verb == READY:
            self._ready(_object(frame.payload), now)
        elif frame.verb == BEGUN:
            self.scheduler.begun(frame.n, now)
        elif frame.verb == FAIL:
            self._failed(_object(frame.payload), now)
        else:
            self._effects.append(Log("warning", f"engine sent an unknown frame: {frame!r}"))

    def garbled(self, what: str, now: float) -> None:
        """The engine's pipe carries something that is no frame: nothing it says can be trusted."""
        self._do(self.supervisor.end(now, f"the engine's output is garbled: {what}"))

    def _hello(self, hello: Mapping[str, Any], now: float) -> None:
        self.engine = {k: hello.get(k) for k in ("version", "python", "graph", "palace")}
        self.scheduler.mine_yields = hello.get("mine_yields") is True
        if self.answers.learn(hello):
            self._effects.append(SaveAnswers(self.answers.encode()))
        for finding in audit(self.answers.tools or []):
            self._effects.append(Log("info", f"tool table: {finding}"))
        self._do(self.supervisor.hello(now))

    def _ready(self, told: Mapping[str, Any], now: float) -> None:
        self.engine["tuneups"] = told.get("tuneups", [])
        self.engine["drawers"] = told.get("drawers")
        self.degraded = [
            {"what": str(d.get("what", "")), "hint": str(d.get("hint", ""))}
            for d in told.get("degraded", ())
            if isinstance(d, dict)
        ]
        self._was_ready = True
        self._do(self.supervisor.ready(now))
        self.pump(now)

    def _failed(self, told: Mapping[str, Any], now: float) -> None:
        kind = str(told.get("reason", "unknown"))
        text = f"{told.get('message') or kind}"
        hint = str(told.get("hint", ""))
        passing = kind in _PASSING_FAULTS or (self._was_ready and kind in _UPGRADE_FAULTS)
        self._do(self.supervisor.failed(now, text, hint, permanent=not passing))

    def _done(self, frame: Frame, now: float) -> None:
        call = self.scheduler.running.get(frame.n)
        if call is None:
            return
        self.scheduler.finish(frame.n)
        if frame.tag == str(STALE_LIBRARY) and not call.answered and (call.may_have_run or not call.was_stale):
            self._stale(call, now)
            return
        self.counters["errors"] += frame.tag != "0"
        response = settle_replayed(call, frame.payload)
        if call.writes:
            self.outcomes.ended(call.key, response if len(response) <= KEEP_BYTES else None, now)
        self._answer(call, response + b"\n")
        self.pump(now)

    def _stale(self, call: Call, now: float) -> None:
        """The engine refused a call because it is out of date: replace it, and run the call on the next one."""
        self.scheduler.requeue(self._refused(call), now)
        self._do(self.supervisor.end(now, "mempalace was upgraded underneath the running engine"))

    def _refused(self, call: Call) -> list[Call]:
        """The call itself if it may be tried once more; else it is answered."""
        if call.was_stale:
            self.fail_waiting(call, errors.ENGINE_DOWN, "not executed: mempalace was upgraded underneath each engine")
            return []
        call.was_stale = True
        call.attempts -= 1
        return [call]

    def exited(self, now: float, how: str, ended: Mapping[str, bytes | None], begun: Collection[str]) -> None:
        """The engine is reaped; `ended` and `begun` are what the journal says now."""
        self.counters["engine_restarts"] += 1
        again: list[Call] = []
        for call in self.scheduler.lost():
            self._after_death(call, how, ended, begun, again, now)
        self.scheduler.requeue(again, now)
        self.counters["replayed"] += sum(call.attempts > 0 for call in again)
        self._do(self.supervisor.exited(now, how))
        self._flush_if_hopeless()

    def _after_death(
        self,
        call: Call,
        how: str,
        ended: Mapping[str, bytes | None],
        begun: Collection[str],
        again: list[Call],
        now: float,
    ) -> None:
        verdict = after_death(call, ended, begun)
        last = ended.get(call.key)
        refused = last is not None and _is_stale(last)
        if call.writes and call.key in ended and not refused:
            self.outcomes.ended(call.key, last, now)
        elif call.writes and (refused or call.key in begun or call.answered):
            self.outcomes.unknown(call.key)
        if call.answered:
            return
        if verdict == AGAIN:
            if call.writes and call.key not in begun:
                call.attempts -= 1  # it never started
            elif call.writes:
                call.may_have_run = True
            again.append(call)
        elif verdict == ANSWER:
            if refused:
                again += self._refused(call)
            elif last is None:
                text = "it was executed and stored, but its answer was lost with the engine. Do not send it again."
                self._fail(call, errors.OUTCOME_UNKNOWN, text)
            else:
                self._answer(call, settle_replayed(call, last) + b"\n")
        elif verdict == POISON:
            text = (
                f"{call.tool} was running each time when the engine died ({how}); not tried a third time. {_DOWN_HINT}"
            )
            self._fail(call, errors.ENGINE_DOWN, text)
        else:
            self._fail(call, errors.OUTCOME_UNKNOWN, f"the engine died ({how}) while it ran {unknown_text(call)}")

    def _flush_if_hopeless(self) -> None:
        if self.supervisor.hopeless:
            for call in self.scheduler.waiting():
                if self.scheduler.withdraw(call):
                    self.fail_waiting(call, errors.ENGINE_DOWN, f"not executed: {self.why_down()}")

    # -- time

    def tick(self, now: float) -> None:
        """Enforce both limits and the supervisor's deadlines."""
        expired = self.scheduler.expire(now)
        for call in expired.waited:
            self.counters["timeouts"] += 1
            self.fail_waiting(call, errors.WAIT_TIMEOUT, self._waited_text(call))
        for call in expired.behind:
            self.counters["timeouts"] += 1
            if call.writes:
                waited = f"waited {self.limits.wait_s:g} s inside the engine behind a mine"
                self._fail(call, errors.OUTCOME_UNKNOWN, f"{waited}: {unknown_text(call)}")
            else:
                self._fail(call, errors.WAIT_TIMEOUT, self._waited_text(call))
        for call in expired.ran:
            self.counters["timeouts"] += 1
            self._ran_out(call, now)
        self._do(self.supervisor.tick(now))

    def _ran_out(self, call: Call, now: float) -> None:
        limit = f"{call.tool} ran longer than {call.run_limit:g} s (MEMPALACE_MCP_TIMEOUT_MS)"
        if call.writes:
            self._fail(
                call,
                errors.OUTCOME_UNKNOWN,
                f"{limit}; the engine is being replaced under {unknown_text(call)}",
            )
        else:
            self._fail(call, errors.RUN_TIMEOUT, f"{limit}; the engine is being replaced. Nothing was changed.")
        self._do(self.supervisor.end(now, limit))

    def _waited_text(self, call: Call) -> str:
        busy = [other.tool for other in self.scheduler.running.values() if other.rule.lane == call.rule.lane]
        state = self.supervisor.state
        behind = f"behind {busy[0]}" if busy else f"for the engine ({state}: {self.supervisor.reason or 'starting'})"
        return (
            f"{call.tool} waited {self.limits.wait_s:g} s (MEMPALACE_MCP_TIMEOUT_MS) {behind} and was not executed. "
            "It is safe to send it again. Hint: `mempalace-broker status` shows what holds the lane."
        )

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        times = [t for t in (self.scheduler.next_deadline(), self.supervisor.next_deadline()) if t is not None]
        return min(times, default=None)

    def is_open(self, key: str) -> bool:
        """Whether a write of that journal key is in the engine now, so that its outcome is still to come."""
        return any(call.key == key and call.state == SENT for call in self.scheduler.running.values())


def unknown_text(call: Call) -> str:
    """What an agent has to know about a write of unknown outcome."""
    look = f"check with {call.rule.check_with}" if call.rule.check_with else "check"
    return f"{call.tool}: it may or may not be stored. Before you send it again, {look}."


def _is_stale(response: bytes) -> bool:
    """Whether an engine only refused, as it was out of date; an earlier one may have run the call all the same."""
    if b"%d" % STALE_LIBRARY not in response:
        return False
    error = _object(response).get("error")
    return isinstance(error, dict) and error.get("code") == STALE_LIBRARY


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
