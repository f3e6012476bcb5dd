"""Which call goes to the engine, what comes back, and what the death of an engine means for each call.

Owns the scheduler, the supervisor and the outcomes. Lines for clients leave through `reply`, all else as effects.

Nothing is sent before the lease is confirmed: `pump` asks for that, and `lease_confirmed` sends what may go then. On
the host the answer comes within microseconds; on a foreign kernel it needs a sync, and the calls wait in their queues.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol import engine_frames as frames
from ...protocol.engine_frames import Frame, FrameError
from ...protocol.journal import KEEP_BYTES
from ...protocol.jsonrpc import load_object
from ...protocol.tools import Lane
from . import failure_texts as texts
from .call import Call
from .call_answers import CallAnswers
from .effects import CallFailed, Effect, Log, PublishTools, SaveAnswers
from .engine_report import EngineReport
from .engine_slot import EngineSlot
from .outcomes import Outcomes
from .parking import ParkState
from .replay import STALE_LIBRARY, Verdict, after_death, refused_as_stale, settle_replayed
from .tool_audit import audit
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .answers import Answers
    from .scheduler import Limits
    from .supervisor import Policy


class Dispatcher(EngineSlot, CallAnswers):
    """The engine side of the protocol.

    Args:
        effects: where effects are added. reply: takes (call, line), once for each call that is to be answered.
        since: the first epoch whose writes are all in our journal, see Outcomes.

    Attributes:
        settled: the journal of earlier brokers was loaded.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        policy: Policy,
        rng: Callable[[], float],
        answers: Answers,
        since: int,
        effects: list[Effect],
        reply: Callable[[Call, bytes], None],
    ) -> None:
        EngineSlot.__init__(self, limits, policy, rng, effects)
        CallAnswers.__init__(self, reply, effects)
        self.outcomes = Outcomes(since)
        self.answers = answers
        self.report = EngineReport()
        self.traffic = Traffic()
        self.settled = False

    # -- calls

    def submit(self, call: Call) -> None:
        """Queue a call, or fail it at once where no engine can be had."""
        self.wake(call.arrived)
        if self.supervisor.hopeless:
            self._fail(call, errors.ENGINE_DOWN, f"not executed: {self.why_down(call.arrived)}")
            return
        self.scheduler.submit(call)
        self.pump()

    def pump(self) -> None:
        """Ask for the lease to be confirmed if a call may go to the engine; `lease_confirmed` sends it."""
        if not self._open or self.confirming or self.parking.between:
            return
        if self.scheduler.has_startable:
            self.confirm()
        else:
            self._send_prefetches()

    def lease_confirmed(self, now: float) -> None:
        """The palace is ours: send what may go to the engine at this moment; a parked one has to open it first."""
        self.confirming = False
        if not self._open or self.parking.between:
            return
        if self.parking.state is ParkState.PARKED:
            self.parking.open(now)
            self._to_engine(Frame(frames.UNPARK))
        else:
            for call in self.scheduler.dispatch(now):
                self._send_call(call)
            self._send_prefetches()

    def _send_call(self, call: Call) -> None:
        """Send a call to the engine; if it can't be sent, that is an error of its sender's and of nobody else."""
        verb = frames.CONFINE if call.confined else frames.CALL
        try:
            self._to_engine(Frame(verb, call.n, call.rule.lane, call.key if call.writes else "-", call.raw))
        except FrameError as exc:
            self.scheduler.finish(call.n)
            self._fail(call, errors.INVALID_REQUEST, f"not executed: {exc}")
            self.pump()

    def withdraw_waiting(self, answered: Collection[int], text: str) -> None:
        """Withdraw all queued calls. Those of the connections in `answered` fail; the others go to the next broker."""
        for call in self.scheduler.waiting():
            self.scheduler.withdraw(call)
            if call.conn in answered:
                self.fail_waiting(call, errors.NOT_EXECUTED, text)

    def lease_lost(self) -> None:
        """The palace is no longer ours: queued calls stay queued, and nothing more is sent."""
        self.confirming = False
        self.holding = True

    def _send_prefetches(self) -> None:
        for call in self.scheduler.prefetches():
            with suppress(FrameError):  # the call itself reports it
                self._to_engine(Frame(frames.PREFETCH, call.n, call.rule.lane, "-", call.raw))

    # -- engine events

    def journal(self, ended: Mapping[str, bytes | None], begun: Collection[str], now: float, covered: float) -> None:
        """Load the journal that earlier brokers left, once, when no engine of theirs can add to it any more."""
        refused = {key for key, response in ended.items() if refused_as_stale(response)}
        proved = {key: response for key, response in ended.items() if key not in refused}
        self.outcomes.load(proved, refused.union(begun), now, covered)
        self.settled = True

    def unstartable(self, now: float, reason: str, hint: str, *, permanent: bool) -> None:
        """The engine process could not be started."""
        self.supervisor.failed(now, reason, hint, permanent=permanent)
        self._flush_if_hopeless(now)

    def frame(self, frame: Frame, now: float) -> None:
        """One frame of the engine."""
        if frame.verb == frames.DONE:
            self._done(frame, now)
        elif frame.verb == frames.HELLO:
            self._hello(load_object(frame.payload), now)
        elif frame.verb == frames.READY:
            self._ready(load_object(frame.payload), now)
        elif frame.verb == frames.BEGUN:
            self.scheduler.begun(frame.n, now)
        elif frame.verb == frames.PROGRESS:
            self.scheduler.progressed(frame.n, frame.tag)
        elif frame.verb == frames.DEGRADED:
            self.report.now_degraded(load_object(frame.payload))
        elif frame.verb == frames.FAIL:
            reason, hint, permanent = self.report.fault(load_object(frame.payload))
            self.supervisor.failed(now, reason, hint, permanent=permanent)
        elif frame.verb == frames.PARKED:
            self._parked(load_object(frame.payload).get("problem"), now)
        elif frame.verb == frames.WAITING:
            self.parking.waits_for(load_object(frame.payload).get("holder"), now)
        else:
            self._effects.append(Log("warning", f"engine sent an unknown frame: {frame!r}"))

    def _hello(self, hello: Mapping[str, Any], now: float) -> None:
        self.report.hello(hello)
        self.scheduler.mine_yields = hello.get("mine_yields") is True
        if self.answers.learn(hello):
            self._effects.append(SaveAnswers(self.answers.encode()))
        self._effects.append(PublishTools())
        for finding in audit(self.answers.tools or []):
            self._effects.append(Log("info", f"tool table: {finding}"))
        self.supervisor.hello(now)

    def _ready(self, told: Mapping[str, Any], now: float) -> None:
        self.report.ready(told)
        self.supervisor.ready(now)
        self.parking.opened(now)
        self.pump()

    def _parked(self, problem: object, now: float) -> None:
        """The engine has closed the palace; where it can't, its end does."""
        self.parking.closed(now)
        if problem:
            self.parking.failed()
            why = f"the engine was idle, and could not close the palace: {problem}"
            self._do(self.supervisor.end(now, why, replace=False))
        else:
            self.pump()

    def _done(self, frame: Frame, now: float) -> None:
        call = self.scheduler.running.get(frame.n)
        if call is None or (self.lending and self.parking.between and call.rule.lane is Lane.WAIT):
            return  # in the second case it failed because the palace was closed under it: the next engine runs it again
        self.scheduler.finish(frame.n)
        self.supervisor.worked()
        self.parking.used(now)
        if frame.tag == str(STALE_LIBRARY) and not call.answered and (call.may_have_run or not call.was_stale):
            self._stale(call, now)
            return
        if not call.answered:
            self._count(call, frame.tag, now)
        response = settle_replayed(call, frame.payload)
        if call.writes:
            self.outcomes.ended(call.key, response if len(response) <= KEEP_BYTES else None, now)
        self._answer(call, response + b"\n")
        self.pump()

    def _count(self, call: Call, tag: str, now: float) -> None:
        error = tag != "0"
        self.traffic.answered(call, now, error=error)
        self.counters["errors"] += error
        if error:
            self._effects.append(CallFailed(call, int(tag)))

    def _stale(self, call: Call, now: float) -> None:
        """The engine refused a call because it is out of date: replace it and run the call on the next one."""
        self.scheduler.requeue(self._refused(call), now)
        self._do(self.supervisor.end(now, "mempalace was upgraded underneath the running engine"))

    def _refused(self, call: Call) -> list[Call]:
        """Handle such a refusal: [call] if it may be tried once more, else answer it and return nothing."""
        if call.was_stale:
            self.fail_waiting(call, errors.ENGINE_DOWN, texts.UPGRADED_AGAIN)
            return []
        call.was_stale = True
        call.attempts -= 1
        return [call]

    def exited(self, now: float, how: str, ended: Mapping[str, bytes | None], begun: Collection[str]) -> None:
        """The engine was reaped; `ended` and `begun` are what the journal says now."""
        self.counters["engine_restarts"] += 1
        again: list[Call] = []
        for call in self.scheduler.lost():
            self.outcomes.after_death(call, ended, begun, now)
            if not call.answered:
                again += self._after_death(call, how, ended, begun)
        self.scheduler.requeue(again, now)
        self.counters["replayed"] += sum(call.attempts > 0 for call in again)
        self.supervisor.exited(now, how)
        self.parking.opened(now)
        self._flush_if_hopeless(now)

    def _after_death(
        self, call: Call, how: str, ended: Mapping[str, bytes | None], begun: Collection[str]
    ) -> list[Call]:
        """Answer a call that was in the engine, or return [call] if it is to run again."""
        verdict = after_death(call, ended, begun)
        if verdict is Verdict.RERUN:
            if call.writes and call.key not in begun:
                call.attempts -= 1  # it never started
            elif call.writes:
                call.may_have_run = True
            return [call]
        if verdict is Verdict.ANSWER:
            return self._answer_from_journal(call, ended[call.key])
        if verdict is Verdict.POISON:
            self._fail(call, errors.ENGINE_DOWN, texts.poisonous(call, how))
        else:
            self._fail(call, errors.OUTCOME_UNKNOWN, f"the engine died ({how}) while it ran {texts.unknown(call)}")
        return []

    def _answer_from_journal(self, call: Call, response: bytes | None) -> list[Call]:
        if refused_as_stale(response):
            return self._refused(call)
        if response is None:
            self._fail(call, errors.OUTCOME_UNKNOWN, texts.STORED_BUT_LOST)
        else:
            self._answer(call, settle_replayed(call, response) + b"\n")
        return []

    def _flush_if_hopeless(self, now: float) -> None:
        for call in self.scheduler.waiting() if self.supervisor.hopeless else ():
            if self.scheduler.withdraw(call):
                self.fail_waiting(call, errors.ENGINE_DOWN, f"not executed: {self.why_down(now)}")

    # -- time

    def tick(self, now: float) -> None:
        """Enforce both limits and the supervisor's deadlines."""
        expired = self.scheduler.expire(now)
        self.counters["timeouts"] += len(expired.waited) + len(expired.behind) + len(expired.ran)
        for call in expired.waited:
            self.fail_waiting(call, errors.WAIT_TIMEOUT, self._waited_text(call))
        for call in expired.behind:
            if call.writes:
                self._fail(call, errors.OUTCOME_UNKNOWN, texts.waited_behind_mine(call, self.limits.wait_s))
            else:
                self._fail(call, errors.WAIT_TIMEOUT, self._waited_text(call))
        for call in expired.ran:
            self._ran_too_long(call, now)
        self._do(self.supervisor.tick(now))
        self._park_if_idle(now)

    @property
    def _unused(self) -> bool:
        return self.scheduler.idle and not self.confirming

    def _park_if_idle(self, now: float) -> None:
        overdue = self.parking.overdue(now) if self._open else ""
        if overdue:
            self._do(self.supervisor.end(now, overdue))
        elif self._open and self._unused and self.parking.unused(now):
            self.parking.close(now)
            self._to_engine(Frame(frames.PARK))

    def _waited_text(self, call: Call) -> str:
        busy = [other.tool for other in self.scheduler.running.values() if other.rule.lane == call.rule.lane]
        return texts.waited(call, self.limits.wait_s, busy, self.supervisor, self.holder)

    def _ran_too_long(self, call: Call, now: float) -> None:
        why = texts.ran_too_long(call)
        if call.writes:
            text = f"{why}; the engine is being replaced under {texts.unknown(call)}"
            self._fail(call, errors.OUTCOME_UNKNOWN, text)
        else:
            self._fail(call, errors.RUN_TIMEOUT, f"{why}; the engine is being replaced. Nothing was changed.")
        self._do(self.supervisor.end(now, why))

    def next_deadline(self) -> float | None:
        """When to call `tick` next, or None."""
        parking = self.parking.next_deadline(idle=self._unused) if self._open else None
        times = (self.scheduler.next_deadline(), self.supervisor.next_deadline(), parking)
        return min([at for at in times if at is not None], default=None)
