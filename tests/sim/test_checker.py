"""The checker earns its keep: each bug put into the code under test, or into the engine, is found by some history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mempalace_broker.broker.machine import dispatcher, protocol, replay
from mempalace_broker.broker.machine.call import Call
from mempalace_broker.broker.machine.fair_queue import FairQueue
from mempalace_broker.broker.machine.outcomes import Outcomes
from mempalace_broker.broker.machine.scheduler import Scheduler
from mempalace_broker.protocol import journal
from mempalace_broker.protocol.hello import WriteOutcome
from mempalace_broker.shim.machine.delivery import Delivery
from mempalace_broker.shim.machine.pending_requests import PendingRequest
from tests.sim.world import PROFILES, Faults, check

if TYPE_CHECKING:
    from collections.abc import Callable

HISTORIES = 250


def caught(text: str, faults: Faults, histories: int = HISTORIES) -> None:
    """Some history breaks a rule, in these words."""
    found: set[str] = set()
    for seed in range(histories):
        for broken in check(seed, faults):
            found.add(broken.split(":")[0])
            if text in broken:
                return
    pytest.fail(f"no history said {text!r}; said: {found}")


CRASHES, NETWORK, KILLS = PROFILES["crashes"], PROFILES["network"], PROFILES["kills"]


def test_replays_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "after_death", lambda call, ended, begun: replay.Verdict.RERUN)
    caught("executed 2 times", CRASHES)


def test_ignores_what_the_journal_says_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def after_death(call: Call, ended: dict[str, bytes | None], begun: set[str]) -> replay.Verdict:
        return replay.after_death(call, {}, begun - ended.keys())

    monkeypatch.setattr(dispatcher, "after_death", after_death)
    caught("executed 2 times", CRASHES)


def test_engine_forgets_to_note_the_start() -> None:
    caught("executed 2 times", Faults(engine_crash=0.4, forget_s=True))


def test_engine_answers_before_it_works() -> None:
    caught("acknowledged, but lost", Faults(engine_crash=0.4, early_answer=True))


def test_broker_tells_unknown_writes_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Outcomes.outcome

    def outcome(self: Outcomes, key: str, sent_at: float) -> tuple[str, bytes | None]:
        state, response = real(self, key, sent_at)
        return (WriteOutcome.NOT_STARTED if state == WriteOutcome.UNKNOWN else state), response

    monkeypatch.setattr(Outcomes, "outcome", outcome)
    caught("executed 2 times", KILLS)


def test_broker_tells_outcomes_while_the_call_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "running_keys", property(lambda self: set()))
    caught("executed 2 times", Faults(cuts=6, slow=0.6, slow_s=1.5))


def test_calls_of_a_lost_connection_stay_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    real = protocol.BrokerProtocol.closed

    def closed(self: protocol.BrokerProtocol, conn: int, now: float) -> None:
        if conn in self.sessions:
            self.sessions[conn].by_id = {}
        real(self, conn, now)

    monkeypatch.setattr(protocol.BrokerProtocol, "closed", closed)
    caught("executed 2 times", Faults(cuts=6, slow=0.6, slow_s=1.5))


def test_says_of_a_begun_write_that_it_was_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher.Dispatcher, "fail_waiting", dispatcher.Dispatcher._fail)
    caught("said not executed, but it was", CRASHES)


def test_an_old_end_in_the_journal_outlives_a_new_start(monkeypatch: pytest.MonkeyPatch) -> None:
    real = journal.parse

    def parse(data: bytes) -> tuple[dict[str, bytes | None], set[str]]:
        lines: list[bytes] = []
        for line in data.split(b"\n"):
            ended = b"\nE " + line[2:] + b" "
            if not line.startswith(b"S ") or ended not in b"\n" + b"\n".join(lines):
                lines.append(line)
        return real(b"\n".join(lines))

    monkeypatch.setattr(journal, "parse", parse)
    caught("said not executed, but it was", Faults(upgrades=8, engine_crash=0.3))


def test_shim_says_not_executed_of_what_it_had_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingRequest, "unknown", PendingRequest.error)
    caught("said not executed, but it was", KILLS)


def test_shim_sends_writes_again_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    def recall(self: Any, request: PendingRequest, reason: str, now: float) -> None:
        self._wait_again(request, reason, now)

    monkeypatch.setattr(Delivery, "_recall", recall)
    caught("executed 2 times", Faults(cuts=6, broker_kills=2, slow=0.6, slow_s=1.0))


def test_answers_get_lost() -> None:
    caught("answered after", Faults(mute=0.1))


def test_answers_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Delivery.fail

    def fail(self: Any, request: PendingRequest, code: int, text: str) -> None:
        self._agent.error(request.id, code, text)
        real(self, request, code, text)

    monkeypatch.setattr(Delivery, "fail", fail)
    caught("answered 2 times", KILLS)


def test_the_youngest_call_runs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FairQueue.push

    def push(self: Any, call: Call) -> None:
        real(self, call)
        line = self._by_flow[call.flow]
        line.rotate(1)

    monkeypatch.setattr(FairQueue, "push", push)
    caught("ran too early", Faults(slow=0.5))


def test_two_palace_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Scheduler, float], list[Call]] = Scheduler.dispatch

    def dispatch(self: Any, now: float) -> list[Call]:
        out = real(self, now)
        self._in_lane["palace"] = 0
        return out + real(self, now)

    monkeypatch.setattr(Scheduler, "dispatch", dispatch)
    caught("too full", Faults(slow=0.5))
