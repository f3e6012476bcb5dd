"""The palace is lent to a command: the engine closes it and ends, and comes back when the command is over."""

from __future__ import annotations

import json

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine.lender import PAUSE_S, TAKE_S
from mempalace_broker.broker.machine.lifecycle import BrokerState
from mempalace_broker.broker.machine.parking import CLOSING_S
from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.broker.machine.supervisor import EngineAction, EngineState
from mempalace_broker.protocol.engine_frames import Frame
from mempalace_broker.protocol.hello import EXCLUSIVE
from tests.unit.broker.machine.dialogue import ADD, SEARCH, WAIT, Talk, call, request

COMMAND = "pid 4711 (mempalace repair), since 2026-11-27 10:22:31"
ASKER = 9


def talk_of(idle_s: float = 0.0) -> Talk:
    talk = Talk(limits=Limits(wait_s=60.0, run_s=60.0, init_s=30.0), idle_s=idle_s)
    talk.opens(1, ASKER)
    talk.engine()
    talk.confirmations()
    return talk


def ask(talk: Talk, conn: int = ASKER, wait_s: object = 30.0, id_: object = "ask") -> None:
    talk.says(conn, request(id_, EXCLUSIVE, wait_s=wait_s))


def verbs(talk: Talk) -> list[str]:
    """What was sent to the engine beside calls; forgets it."""
    sent = [frame.verb for frame in talk.inside if frame.verb != "call"]
    talk.inside[:] = [frame for frame in talk.inside if frame.verb == "call"]
    return sent


def parked(talk: Talk, problem: str = "") -> None:
    talk.dispatcher.frame(Frame("parked", payload=json.dumps({"problem": problem}).encode()), talk.now)
    talk.turn()


def granted() -> Talk:
    talk = talk_of()
    ask(talk)
    assert verbs(talk) == ["park"]
    parked(talk)
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.dies()
    assert talk.answer(ASKER)["result"] == {"granted": True}
    return talk


def busy(talk: Talk, holder: str = COMMAND, *, is_engine: bool = False) -> None:
    talk.dispatcher.lock_busy(talk.now, holder, is_engine=is_engine)
    talk.turn()


def state(talk: Talk) -> EngineState:
    return talk.dispatcher.supervisor.state


def test_the_engine_closes_the_palace_and_ends_before_it_is_granted() -> None:
    talk = talk_of()
    ask(talk)
    assert talk.confirmations() == 1, "the lease says busy, so that no other kernel takes it"
    assert verbs(talk) == ["park"]
    assert talk.engine() == []
    parked(talk)
    assert talk.engine() == [EngineAction.TERMINATE]
    assert talk.heard(ASKER) == []
    assert not talk.dispatcher.resting
    talk.dies()
    assert talk.answer(ASKER)["result"] == {"granted": True}
    assert (talk.engine(), state(talk)) == ([], EngineState.DOWN)
    assert not talk.dispatcher.resting


def test_running_calls_finish_and_new_ones_wait_for_the_next_engine() -> None:
    talk = talk_of()
    talk.says(1, call(1, ADD))
    ask(talk)
    talk.says(1, call(2, SEARCH))
    assert (talk.ids(), verbs(talk)) == ([1], [])
    talk.done(talk.frame(1))
    assert talk.answer(1)["id"] == 1
    assert verbs(talk) == ["park"]
    parked(talk)
    talk.dies()
    talk.heard(ASKER)
    talk.says(1, request(3, "ping"), call(4, SEARCH))
    assert talk.answer(1)["id"] == 3, "what needs no engine is answered"
    assert talk.engine() == [EngineAction.TERMINATE], "no call starts an engine"
    talk.gone(ASKER)
    assert talk.engine() == [EngineAction.SPAWN]
    talk.engine_up()
    assert talk.ids() == [2]


def test_a_call_that_blocks_by_design_runs_again_on_the_next_engine() -> None:
    talk = talk_of()
    talk.says(1, call(1, WAIT))
    waiting = talk.frame(1)
    ask(talk)
    assert verbs(talk) == ["park"], "it would hold the palace for minutes"
    talk.done(waiting, b'{"error": "the database is closed"}')
    assert talk.heard(1) == []
    parked(talk, "still open: logstream.sqlite3")
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.dies()
    talk.gone(ASKER)
    talk.engine_up()
    assert talk.ids() == [1]


def lent(talk: Talk) -> tuple[bool, str]:
    """Keeps mypy from taking them for settled by an earlier assertion."""
    return talk.dispatcher.lent, talk.dispatcher.holder


def test_the_command_keeps_the_engine_away_as_long_as_it_has_the_lock() -> None:
    talk = granted()
    talk.gone(ASKER)
    assert talk.engine() == [EngineAction.SPAWN]
    busy(talk)
    talk.says(1, call(1, ADD))
    assert lent(talk) == (True, COMMAND)
    assert not talk.dispatcher.resting, "the lease stays busy"
    for _ in range(500):
        talk.wait(0.1)
        busy(talk)
    assert set(talk.engine()) == {EngineAction.SPAWN}, "a command is never killed"
    talk.wait(11.0)
    error = talk.answer(1)["error"]
    assert error["code"] == errors.WAIT_TIMEOUT
    assert f"another process that works on the palace, {COMMAND}, and was not executed" in error["message"]
    talk.engine_up()
    assert lent(talk) == (False, "")


def test_an_engine_that_has_the_lock_after_a_command_is_one_again() -> None:
    talk = granted()
    talk.gone(ASKER)
    busy(talk)
    busy(talk, "pid 12", is_engine=True)
    assert talk.dispatcher.holder == ""


def test_a_grant_that_nobody_takes_ends() -> None:
    talk = granted()
    talk.wait(TAKE_S - 0.1)
    assert talk.engine() == []
    assert talk.protocol.next_deadline() == pytest.approx(talk.now + 0.1)
    talk.wait(0.2)
    assert talk.engine() == [EngineAction.SPAWN]
    assert talk.heard(ASKER) == []


def test_an_asker_that_waited_in_vain_is_told_why_and_calls_go_on() -> None:
    talk = talk_of()
    talk.says(1, call(1, ADD))
    talk.wait(7.0)
    ask(talk, wait_s=20)
    talk.says(1, call(2, SEARCH))
    talk.wait(20.0)
    error = talk.answer(ASKER)["error"]
    assert error["code"] == errors.NOT_EXECUTED
    assert f"not get free within 20 s: {ADD} has been running for 27 s" in error["message"]
    talk.done(talk.frame(1))
    assert talk.ids() == [2]
    assert talk.engine() == []


def test_an_asker_that_leaves_early_leaves_everything_as_it_was() -> None:
    talk = talk_of()
    ask(talk)
    talk.gone(ASKER)
    assert verbs(talk) == ["park"]
    parked(talk)
    assert talk.engine() == []
    talk.says(1, call(1, SEARCH))
    assert verbs(talk) == ["unpark"]


def test_two_askers_and_two_questions_of_one_are_all_answered() -> None:
    talk = talk_of()
    talk.opens(8)
    ask(talk)
    ask(talk, 8)
    ask(talk, 8, id_="again")
    parked(talk)
    talk.dies()
    assert talk.answer(ASKER)["result"] == {"granted": True}
    assert [said["id"] for said in talk.heard(8)] == ["ask", "again"]
    talk.gone(ASKER)
    assert talk.engine() == [EngineAction.TERMINATE], "the other one has not taken the lock yet"
    talk.gone(8)
    assert talk.engine() == [EngineAction.SPAWN]


@pytest.mark.parametrize("wait_s", [None, -1, "soon", True, 1e300, pytest.param(10**400, id="huge")])
def test_a_wait_that_is_no_number_of_seconds_is_bounded(wait_s: object) -> None:
    talk = talk_of()
    talk.says(1, call(1, ADD))
    ask(talk, wait_s=wait_s)
    talk.wait(3601.0)
    assert "error" in talk.answer(ASKER)


def test_an_engine_that_does_not_close_the_palace_is_ended() -> None:
    talk = talk_of()
    ask(talk)
    talk.wait(CLOSING_S)
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.wait(2.0)
    assert talk.engine() == [EngineAction.KILL]
    talk.dies()
    assert talk.answer(ASKER)["result"] == {"granted": True}


def test_an_engine_that_waits_for_a_mine_is_ended_and_one_that_dies_stays_away() -> None:
    talk = talk_of()
    talk.dispatcher.parking.close(talk.now)
    parked(talk)
    talk.says(1, call(1, SEARCH))
    assert verbs(talk) == ["unpark"]
    talk.dispatcher.frame(Frame("waiting", payload=b'{"holder": "pid 1 (mempalace mine)"}'), talk.now)
    ask(talk)
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.dies()
    assert talk.answer(ASKER)["result"] == {"granted": True}


def test_it_is_granted_where_no_engine_comes_up() -> None:
    talk = talk_of()
    talk.dispatcher.supervisor.failed(talk.now, "no mempalace", "install it", permanent=True)
    talk.dies()
    ask(talk)
    assert talk.answer(ASKER)["result"] == {"granted": True}


def test_a_start_under_way_is_awaited() -> None:
    talk = Talk(up=False)
    talk.opens(ASKER)
    ask(talk)
    talk.wait(0.05)
    assert talk.heard(ASKER) == []
    busy(talk)
    assert talk.answer(ASKER)["result"] == {"granted": True}
    assert state(talk) is EngineState.DOWN


def test_a_start_that_came_through_is_taken_back() -> None:
    talk = Talk(up=False)
    talk.opens(ASKER)
    ask(talk)
    talk.engine_up()
    assert verbs(talk) == ["park"]


def pause(talk: Talk, conn: int = ASKER) -> None:
    talk.says(conn, request("ask", EXCLUSIVE, wait_s=30, pause=True))


def test_a_pause_is_granted_between_two_calls_and_leaves_the_engine() -> None:
    talk = talk_of()
    talk.says(1, call(1, ADD), call(2, WAIT))
    pause(talk)
    talk.says(1, call(3, ADD))
    assert talk.heard(ASKER) == []
    talk.done(talk.frame(1))
    assert talk.answer(ASKER)["result"] == {"granted": True}
    assert (talk.ids(), verbs(talk), talk.engine()) == ([2], [], [])
    talk.gone(ASKER)
    assert talk.ids() == [2, 3]
    assert talk.engine() == []


def test_a_pause_ends_by_itself() -> None:
    talk = talk_of()
    pause(talk)
    talk.says(1, call(1, ADD))
    talk.wait(PAUSE_S - 0.1)
    assert talk.ids() == []
    talk.wait(0.2)
    assert talk.ids() == [1]


def test_a_pause_without_an_engine_starts_none_meanwhile() -> None:
    talk = Talk(up=False)
    talk.opens(ASKER)
    talk.dispatcher.unstartable(talk.now, "no mempalace", "install it", permanent=False)
    talk.turn()
    talk.engine()
    pause(talk)
    assert talk.answer(ASKER)["result"] == {"granted": True}
    talk.wait(PAUSE_S - 0.1)
    assert talk.engine() == []
    talk.gone(ASKER)
    assert talk.engine() == [EngineAction.SPAWN]


def test_who_wants_the_palace_gets_it_after_a_pause() -> None:
    talk = talk_of()
    talk.opens(8)
    pause(talk)
    ask(talk, 8)
    assert talk.answer(ASKER)["result"] == {"granted": True}
    assert verbs(talk) == [], "the engine does not touch the palace now"
    talk.gone(ASKER)
    assert verbs(talk) == ["park"]


def test_a_guest_does_not_get_it() -> None:
    talk = Talk()
    talk.opens(5, origin=Origin.GUEST)
    ask(talk, 5)
    error = talk.answer(5)["error"]
    assert error["code"] == errors.NOT_ALLOWED
    assert "mempalace-broker exclusive" in error["message"]
    assert not talk.dispatcher.lent


def test_a_broker_with_a_command_at_work_does_not_leave_for_idleness() -> None:
    talk = talk_of(idle_s=5.0)
    ask(talk)
    parked(talk)
    talk.dies()
    talk.gone(1)
    talk.gone(ASKER)
    busy(talk)
    for _ in range(100):
        talk.wait(1.0)
        busy(talk)
    assert talk.protocol.state == BrokerState.SERVING
    talk.engine_up()
    talk.wait(6.0)
    assert talk.protocol.state != BrokerState.SERVING


def test_a_broker_that_leaves_starts_no_engine() -> None:
    talk = granted()
    talk.protocol.drain(talk.now, "told to")
    talk.gone(ASKER)
    assert talk.engine() == []
    assert talk.quits() == ["told to"]
