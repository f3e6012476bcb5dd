"""An idle engine lets go of the palace; the next call waits until it has the palace again."""

from __future__ import annotations

import json

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine.parking import CLOSING_S, SLOW_PARK_S, Parking, ParkState
from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.supervisor import EngineAction, EngineState
from mempalace_broker.protocol.engine_frames import Frame
from tests.unit.broker.machine.dialogue import ADD, KG_QUERY, SEARCH, Talk, call, cancel, request

PARK_S = 5.0
HOLDER = "pid 4711 (mempalace mine), since 2026-11-27 10:22:31"


def talk_of(limits: Limits | None = None) -> Talk:
    talk = Talk(limits=limits or Limits(park_s=PARK_S, wait_s=60.0, init_s=30.0))
    talk.opens(1)
    talk.engine()
    return talk


def verbs(talk: Talk) -> list[str]:
    """What was sent to the engine; forgets it."""
    sent = [frame.verb for frame in talk.inside]
    talk.inside.clear()
    return sent


def told(talk: Talk, verb: str, **payload: object) -> None:
    talk.dispatcher.frame(Frame(verb, payload=json.dumps(payload).encode()), talk.now)
    talk.turn()


def parked(limits: Limits | None = None) -> Talk:
    talk = talk_of(limits)
    talk.wait(PARK_S)
    assert verbs(talk) == ["park"]
    told(talk, "parked", problem="")
    return talk


def state(talk: Talk) -> ParkState:
    """Keeps mypy from taking the state for settled by an earlier assertion."""
    return talk.dispatcher.parking.state


def resting(talk: Talk) -> bool:
    return talk.dispatcher.resting


def engine_state(talk: Talk) -> EngineState:
    return talk.dispatcher.supervisor.state


def test_an_engine_without_a_call_closes_the_palace_and_the_next_call_opens_it() -> None:
    talk = parked()
    assert state(talk) is ParkState.PARKED
    assert resting(talk), "nothing is in the engine: the lease may rest"
    talk.says(1, call(1, ADD), call(2, KG_QUERY))
    assert verbs(talk) == ["unpark"], "no call is sent before the palace is open"
    assert not resting(talk)
    told(talk, "ready")
    assert verbs(talk) == ["call", "call"]
    assert state(talk) is ParkState.OPEN


def test_the_pause_counts_from_the_end_of_the_last_call() -> None:
    talk = talk_of()
    talk.says(1, call(1, SEARCH))
    talk.wait(3 * PARK_S)
    assert state(talk) is ParkState.OPEN, "a call runs"
    talk.done(talk.frame(1))
    talk.wait(PARK_S - 0.1)
    assert state(talk) is ParkState.OPEN
    assert talk.protocol.next_deadline() == pytest.approx(talk.now + 0.1)
    talk.wait(0.2)
    assert verbs(talk) == ["park"]


def test_zero_means_never() -> None:
    talk = talk_of(Limits(park_s=0.0))
    talk.wait(100_000.0)
    assert verbs(talk) == []
    assert talk.protocol.next_deadline() is None


def test_a_call_that_comes_while_the_palace_is_being_closed_waits_for_both() -> None:
    talk = talk_of()
    talk.wait(PARK_S)
    assert verbs(talk) == ["park"]
    talk.says(1, call(1, SEARCH))
    assert verbs(talk) == []
    told(talk, "parked", problem="")
    assert verbs(talk) == ["unpark"]
    told(talk, "ready")
    assert talk.ids() == [1]


def test_the_lease_is_confirmed_before_the_palace_is_opened() -> None:
    talk = parked()
    talk.confirms = False
    talk.confirmations()
    talk.says(1, call(1, SEARCH))
    assert (talk.confirmations(), verbs(talk)) == (1, [])
    talk.lease()
    talk.turn()
    assert verbs(talk) == ["unpark"]


def test_a_lease_that_is_lost_leaves_the_palace_closed() -> None:
    talk = parked()
    talk.leased = False
    talk.says(1, call(1, SEARCH))
    assert (verbs(talk), state(talk)) == ([], ParkState.PARKED)


def test_a_call_that_waits_too_long_says_who_has_the_palace() -> None:
    talk = parked()
    talk.says(1, call(1, ADD))
    assert verbs(talk) == ["unpark"]
    told(talk, "waiting", holder=HOLDER)
    talk.says(1, request(2, "ping"))
    assert talk.answer(1)["id"] == 2, "what needs no engine is answered"
    talk.wait(59.0)
    assert talk.heard(1) == []
    talk.wait(1.1)
    error = talk.answer(1)["error"]
    assert error["code"] == errors.WAIT_TIMEOUT
    assert f"another process that works on the palace, {HOLDER}, and was not executed" in error["message"]
    assert "safe to send it again" in error["message"]
    assert talk.engine() == [], "an engine that waits for another process is left alone"


def test_calls_go_on_when_that_process_is_done() -> None:
    talk = parked()
    talk.says(1, call(1, ADD))
    assert verbs(talk) == ["unpark"]
    told(talk, "waiting", holder=HOLDER)
    assert talk.dispatcher.parking.holder == HOLDER
    told(talk, "waiting", holder="")
    assert talk.dispatcher.parking.holder == ""
    told(talk, "ready")
    assert talk.ids() == [1]


def test_a_withdrawn_call_leaves_an_engine_that_opens_and_then_parks_again() -> None:
    talk = parked()
    talk.says(1, call(1, ADD), cancel(1))
    assert verbs(talk) == ["unpark"]
    told(talk, "ready")
    assert verbs(talk) == []
    talk.wait(PARK_S)
    assert verbs(talk) == ["park"]


def test_an_engine_that_cannot_close_the_palace_is_ended_and_the_next_call_starts_another() -> None:
    talk = talk_of()
    talk.wait(PARK_S)
    verbs(talk)
    told(talk, "parked", problem="still open: chroma.sqlite3")
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.dies()
    assert (engine_state(talk), talk.engine()) == (EngineState.DOWN, [])
    assert "still open: chroma.sqlite3" in talk.dispatcher.supervisor.reason
    talk.says(1, call(1, SEARCH))
    assert talk.engine() == [EngineAction.SPAWN]
    talk.engine_up()
    assert talk.ids() == [1]
    talk.done(talk.frame(1))
    talk.wait(SLOW_PARK_S - 1.0)
    assert verbs(talk) == [], "starting costs more than opening"
    talk.wait(1.0)
    assert verbs(talk) == ["park"]


def test_a_call_while_that_engine_ends_is_run_by_the_next() -> None:
    talk = talk_of()
    talk.wait(PARK_S)
    verbs(talk)
    told(talk, "parked", problem="still open: chroma.sqlite3")
    talk.says(1, call(1, SEARCH))
    talk.engine()
    talk.dies()
    talk.recovers()
    assert talk.ids() == [1]


@pytest.mark.parametrize("opening", [False, True])
def test_an_engine_that_hangs_on_the_way_is_replaced(opening: bool) -> None:
    talk = parked() if opening else talk_of()
    if opening:
        talk.says(1, call(1, SEARCH))
        talk.wait(30.0)
    else:
        talk.wait(PARK_S)
        talk.wait(CLOSING_S)
    assert verbs(talk) == (["unpark"] if opening else ["park"])
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.dies()
    talk.recovers()
    assert state(talk) is ParkState.OPEN
    assert talk.ids() == ([1] if opening else [])


def test_an_engine_that_dies_while_it_is_parked_is_replaced() -> None:
    talk = parked()
    talk.dies()
    talk.recovers()
    assert state(talk) is ParkState.OPEN


def test_a_broker_that_leaves_neither_parks_nor_wakes() -> None:
    talk = parked()
    talk.protocol.drain(talk.now, "told to")
    talk.turn()
    assert talk.quits() == ["told to"]
    assert verbs(talk) == []


def test_words_of_the_engine_for_another_state_are_ignored() -> None:
    parking = Parking(PARK_S, 0.0)
    parking.waits_for(HOLDER, 1.0)
    assert parking.holder == ""
    parking.open(2.0)
    parking.waits_for(None, 3.0)
    assert (parking.holder, parking.overdue(1e9)) == ("", ""), "no limit"
