"""What the engine's words and its death mean for calls; both limits; hopeless states."""

from __future__ import annotations

import json

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.broker.machine.supervisor import EngineAction, EngineState, Policy
from mempalace_broker.protocol.engine_frames import Frame
from mempalace_broker.protocol.journal import KEEP_BYTES
from tests.unit.broker.machine.dialogue import (
    ADD,
    DELETE,
    DIARY,
    KG_ADD,
    KG_QUERY,
    SEARCH,
    WAIT,
    Talk,
    call,
    cancel,
    request,
    result,
)

MINE = "mempalace_mine"
KEY = "raw0x1.0.1"


def talk_of(*tools: str, limits: Limits | None = None) -> Talk:
    """One bare client whose calls 1, 2, ... have reached the broker."""
    talk = Talk(limits=limits)
    talk.opens(1)
    talk.says(1, *(call(n, tool, query="x") for n, tool in enumerate(tools, 1)))
    talk.engine()
    return talk


# -- a death in the middle of a call


def test_a_read_runs_again_twice_then_it_is_given_up() -> None:
    talk = talk_of(SEARCH)
    for _ in range(2):
        talk.dies()
        talk.recovers()
        assert talk.ids() == [1]
    talk.dies()
    assert talk.code(1) == errors.ENGINE_DOWN


def test_a_call_that_only_waits_outlives_any_number_of_engines() -> None:
    talk = talk_of("mempalace_event_wait")
    for _ in range(9):
        talk.dies()
        talk.recovers()
        assert talk.ids() == [1]


def test_a_write_that_had_not_begun_runs_on_the_next_engine() -> None:
    talk = talk_of(DIARY)
    for _ in range(2):
        talk.dies()
        talk.recovers()
    assert talk.ids() == [1]
    talk.done(talk.inside[0])
    assert talk.code(1) == 0


def test_a_write_that_must_not_run_twice_is_of_unknown_outcome() -> None:
    talk = talk_of(DIARY)
    talk.dies(begun=(KEY,))
    error = talk.answer(1)["error"]
    assert error["code"] == errors.OUTCOME_UNKNOWN
    assert "mempalace_diary_read" in error["message"], "it names the tool to look with"
    talk.recovers()
    assert talk.ids() == []
    assert talk.dispatcher.counters["unknown_outcomes"] == 1


def test_an_idempotent_write_runs_again_once() -> None:
    talk = talk_of(ADD)
    talk.dies(begun=(KEY,))
    talk.recovers()
    assert talk.ids() == [1]
    talk.dies(begun=(KEY,))
    assert talk.code(1) == errors.OUTCOME_UNKNOWN


def test_a_write_that_ran_is_answered_from_the_journal() -> None:
    talk = talk_of(DIARY)
    talk.dies({KEY: result(1, "stored")})
    assert talk.answer(1)["result"]["content"][0]["text"] == "stored"


def test_a_write_whose_answer_was_too_large_to_keep_is_said_to_be_stored() -> None:
    talk = talk_of(DIARY)
    talk.dies({KEY: None})
    error = talk.answer(1)["error"]
    assert error["code"] == errors.OUTCOME_UNKNOWN
    assert "Do not send it again" in error["message"]


NOT_FOUND = json.dumps({"success": False, "error": "Drawer not found: d1"})


@pytest.mark.parametrize("by_journal", [True, False])
def test_a_delete_that_ran_twice_succeeds(by_journal: bool) -> None:
    talk = talk_of(DELETE)
    talk.dies(begun=(KEY,))
    talk.recovers()
    if by_journal:
        talk.dies({KEY: result(1, NOT_FOUND)})
    else:
        talk.done(talk.inside[0], result(1, NOT_FOUND))
    told = json.loads(talk.answer(1)["result"]["content"][0]["text"])
    assert told["success"] is True
    assert "error" not in told


def test_a_delete_that_ran_once_finds_nothing() -> None:
    talk = talk_of(DELETE)
    talk.dies()
    talk.recovers()
    talk.done(talk.inside[0], result(1, NOT_FOUND))
    assert json.loads(talk.answer(1)["result"]["content"][0]["text"])["success"] is False


def test_what_was_in_the_engine_runs_before_everything_else_and_in_its_order() -> None:
    talk = talk_of(KG_ADD, KG_ADD, KG_QUERY, KG_QUERY)
    talk.opens(2)
    talk.says(2, call(9, KG_QUERY))
    talk.done(talk.frame(1))
    assert talk.ids() == [2, 3, 4, 9]
    talk.says(1, call(5, KG_QUERY))
    talk.dies(begun=("raw0x1.0.2",))
    talk.recovers()
    assert talk.ids() == [2, 3, 4, 9]


def test_a_call_of_a_lost_client_does_not_run_again() -> None:
    talk = talk_of(ADD)
    talk.gone(1)
    talk.dies(begun=(KEY,))
    talk.recovers()
    assert talk.ids() == []


# -- the two limits


def test_waiting_has_a_limit() -> None:
    talk = talk_of(MINE, SEARCH, limits=Limits(wait_s=10.0, run_s=0.0))
    talk.wait(9.9)
    assert talk.heard(1) == []
    talk.wait(0.2)
    error = talk.answer(1)["error"]
    assert error["code"] == errors.WAIT_TIMEOUT
    assert "behind mempalace_mine" in error["message"]
    assert talk.ids() == [1]


def test_waiting_for_an_engine_has_a_limit_too() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, call(1, DIARY))
    talk.wait(61.0)
    error = talk.answer(1)["error"]
    assert error["code"] == errors.WAIT_TIMEOUT
    assert "for the engine (locking" in error["message"]


@pytest.mark.parametrize(("tool", "code"), [(SEARCH, errors.RUN_TIMEOUT), (ADD, errors.OUTCOME_UNKNOWN)])
def test_a_call_that_runs_too_long_is_answered_and_its_engine_replaced(tool: str, code: int) -> None:
    talk = talk_of(tool, SEARCH, limits=Limits(run_s=10.0))
    talk.wait(10.0)
    assert talk.code(1) == code
    assert talk.engine() == [EngineAction.TERMINATE]
    talk.wait(2.0)
    assert talk.engine() == [EngineAction.KILL]
    talk.done(talk.frame(1))  # its last word, unheard
    assert talk.heard(1) == []
    talk.dies()
    talk.recovers()
    assert talk.ids() == [2]


def test_the_fate_of_a_write_that_ran_too_long_and_ended_after_all_is_known() -> None:
    talk = Talk(limits=Limits(run_s=10.0))
    talk.greets(1, "s", 1)
    talk.says(1, call(1, DIARY))
    talk.wait(10.0)
    assert talk.heard(1)[1]["error"]["code"] == errors.OUTCOME_UNKNOWN
    talk.done(talk.frame(1))
    talk.asks(1, 1, 2)
    assert talk.answer(1)["result"]["outcomes"]["2"]["state"] == "done"


def test_a_mine_has_no_limit_and_an_event_wait_its_own() -> None:
    talk = talk_of(MINE)
    talk.wait(100_000.0)
    assert talk.heard(1) == []
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, WAIT, timeout_ms=70_000))
    talk.wait(74.9)
    assert talk.heard(1) == []
    talk.wait(0.2)
    assert talk.code(1) == errors.RUN_TIMEOUT


def test_zero_turns_every_limit_off() -> None:
    talk = talk_of(SEARCH, SEARCH, limits=Limits(wait_s=0.0, run_s=0.0))
    talk.wait(1e6)
    assert talk.heard(1) == []


def test_a_write_that_waits_for_its_second_run_waits_anew() -> None:
    talk = talk_of(MINE, limits=Limits(wait_s=10.0))
    talk.wait(5000.0)
    talk.dies(begun=(KEY,))
    talk.wait(0.01)
    assert talk.heard(1) == []
    talk.recovers()
    assert talk.ids() == [1]


def test_nobody_says_of_a_begun_write_that_it_was_not_executed() -> None:
    talk = talk_of(ADD, ADD, limits=Limits(wait_s=10.0))
    talk.dies(begun=(KEY,))
    talk.wait(0.05)
    talk.dispatcher.lock_busy(talk.now, "somebody")
    talk.wait(11.0)
    codes = {answer["id"]: answer["error"]["code"] for answer in talk.heard(1)}
    assert codes == {1: errors.OUTCOME_UNKNOWN, 2: errors.WAIT_TIMEOUT}


def test_hopeless_states_tell_begun_writes_from_the_others() -> None:
    talk = talk_of(ADD, ADD, SEARCH)
    talk.dies(begun=(KEY,))
    talk.dispatcher.unstartable(talk.now, "gone", "look", permanent=True)
    talk.turn()
    codes = {answer["id"]: answer["error"]["code"] for answer in talk.heard(1)}
    assert codes == {1: errors.OUTCOME_UNKNOWN, 2: errors.ENGINE_DOWN, 3: errors.ENGINE_DOWN}


# -- mines that let others in


def yielding(*tools: str, limits: Limits | None = None) -> Talk:
    talk = Talk(up=False, limits=limits)
    talk.engine_up(mine_yields=True)
    talk.opens(1)
    talk.says(1, *(call(n, tool, query="x") for n, tool in enumerate(tools, 1)))
    talk.engine()
    return talk


def test_one_call_waits_in_the_engine_beside_a_mine() -> None:
    talk = yielding(MINE, SEARCH, SEARCH)
    assert talk.ids() == [1, 2]
    talk.dispatcher.frame(Frame("begun", 2), talk.now)
    talk.done(talk.frame(2))
    assert talk.ids() == [1, 3]


@pytest.mark.parametrize("tool", [MINE, "mempalace_sync", "mempalace_reconnect", "strange"])
def test_what_does_not_go_beside_a_mine_waits_for_its_end(tool: str) -> None:
    talk = yielding(MINE, tool)
    assert talk.ids() == [1]


@pytest.mark.parametrize(("tool", "code"), [(SEARCH, errors.WAIT_TIMEOUT), (ADD, errors.OUTCOME_UNKNOWN)])
def test_a_call_that_waits_too_long_beside_a_mine_is_answered_and_the_mine_goes_on(tool: str, code: int) -> None:
    talk = yielding(MINE, tool, limits=Limits(wait_s=10.0))
    talk.wait(10.0)
    assert talk.code(1) == code
    assert talk.engine() == []


def test_the_running_limit_begins_when_the_engine_says_so() -> None:
    talk = yielding(MINE, SEARCH, limits=Limits(wait_s=10.0, run_s=10.0))
    talk.wait(9.0)
    talk.dispatcher.frame(Frame("begun", 2), talk.now)
    talk.wait(9.0)
    assert talk.heard(1) == []
    talk.wait(1.0)
    assert talk.code(1) == errors.RUN_TIMEOUT
    assert talk.engine() == [EngineAction.TERMINATE]


# -- the engine's words


def test_an_upgrade_underneath_replaces_the_engine_and_runs_the_call_on_the_next() -> None:
    talk = talk_of(DIARY)
    talk.done(talk.inside[0], b'{"id":1,"error":{"code":-32005,"message":"upgraded"}}', code=-32005)
    assert talk.engine() == [EngineAction.TERMINATE]
    assert talk.heard(1) == []
    talk.dies({KEY: b"stale"})
    talk.recovers()
    talk.done(talk.inside[0])
    assert talk.code(1) == 0


def test_an_engine_that_is_stale_again_is_believed() -> None:
    talk = talk_of(SEARCH)
    stale = b'{"id":1,"error":{"code":-32005,"message":"upgraded"}}'
    talk.done(talk.inside[0], stale, code=-32005)
    talk.dies()
    talk.recovers()
    talk.done(talk.inside[0], stale, code=-32005)
    assert talk.code(1) == -32005


def test_calls_that_a_stale_engine_refused_keep_their_order() -> None:
    talk = talk_of(KG_ADD, KG_ADD, KG_ADD)
    stale = b'{"id":1,"error":{"code":-32005,"message":"upgraded"}}'
    talk.done(talk.frame(1), stale, code=-32005)
    talk.done(talk.frame(2), stale, code=-32005)
    talk.dies()
    talk.recovers()
    assert talk.ids() == [1, 2, 3]


def test_a_begun_write_that_a_stale_engine_refused_twice_is_of_unknown_outcome() -> None:
    stale = b'{"id":1,"error":{"code":-32005,"message":"upgraded"}}'
    talk = talk_of(ADD)
    talk.dies(begun=(KEY,))
    for _ in range(2):
        talk.recovers()
        talk.done(talk.inside[0], stale, code=-32005)
        talk.dies()
    assert talk.code(1) == errors.OUTCOME_UNKNOWN


def test_a_refusal_that_is_read_from_the_journal_is_one_too() -> None:
    stale = b'{"id":1,"error":{"code":-32005,"message":"upgraded"}}'
    talk = talk_of(DIARY)
    talk.dies({KEY: stale})
    talk.recovers()
    assert talk.ids() == [1]
    talk.dies({KEY: stale})
    assert talk.code(1) == errors.ENGINE_DOWN


def test_garbled_output_ends_the_engine() -> None:
    talk = talk_of(SEARCH)
    talk.dispatcher.garbled("Segmentation fault", talk.now)
    talk.turn()
    assert talk.engine() == [EngineAction.TERMINATE]
    assert "garbled" in talk.dispatcher.supervisor.reason


def test_a_frame_that_nobody_knows_is_logged() -> None:
    talk = Talk()
    talk.dispatcher.frame(Frame("dance"), talk.now)
    talk.dispatcher.frame(Frame("done", 99, tag="0", payload=b"{}"), talk.now)
    talk.turn()
    assert [effect.level for effect in talk.seen if isinstance(effect, fx.Log)].count("warning") == 1


@pytest.mark.parametrize("payload", [b"", b"7", b"{", b'{"degraded":["x",{"what":"w","hint":"m"}]}'])
def test_garbled_words_do_no_harm(payload: bytes) -> None:
    talk = Talk(up=False)
    talk.dispatcher.spawned(talk.now, 1)
    talk.dispatcher.frame(Frame("hello", payload=payload), talk.now)
    talk.dispatcher.frame(Frame("ready", payload=payload), talk.now)
    assert talk.dispatcher.supervisor.state == EngineState.READY
    assert talk.dispatcher.report.degraded == ([{"what": "w", "hint": "m"}] if b"what" in payload else [])


@pytest.mark.parametrize(
    ("reason", "state"), [("write_lock_held", EngineState.UNAVAILABLE), ("no_mempalace", EngineState.FATAL)]
)
def test_a_fault_that_passes_is_tried_again_another_is_not(reason: str, state: str) -> None:
    talk = Talk(up=False)
    talk.dispatcher.spawned(talk.now, 1)
    fault = {"reason": reason, "message": "held by pid 7", "hint": "end it"}
    talk.dispatcher.frame(Frame("fail", tag="75", payload=json.dumps(fault).encode()), talk.now)
    talk.dies()
    assert talk.dispatcher.supervisor.state == state
    talk.opens(1)
    talk.says(1, call(1, ADD))
    message = talk.answer(1)["error"]["message"]
    assert "held by pid 7" in message
    assert "Hint: end it" in message


def test_a_probe_closes_the_circuit_again() -> None:
    talk = unavailable()
    talk.says(1, call(1, ADD))
    assert talk.code(1) == errors.ENGINE_DOWN
    talk.recovers()
    talk.says(1, call(2, ADD))
    assert talk.ids() == [2]


def unavailable() -> Talk:
    """An engine that died before it was ready, and client 1."""
    talk = Talk(policy=Policy(budget=1), up=False)
    talk.dispatcher.spawned(talk.now, 1)
    talk.opens(1)
    talk.dies()
    talk.engine()
    return talk


@pytest.mark.parametrize("asked", [call(1, ADD), request(1, "tools/list")])
def test_a_call_looks_again_at_once_but_not_too_often(asked: dict[str, object]) -> None:
    talk = unavailable()
    talk.wait(1.5)
    talk.says(1, asked)
    (refused,) = talk.heard(1)
    told = refused["error"]["message"]
    assert "has been unavailable for 2 s (1 starts failed within 60 s; the engine ended: signal 9)" in told
    assert "a call in 1 s tries again" in told
    talk.wait(0.5)
    talk.says(1, asked)
    assert (talk.engine(), talk.heard(1)) == ([EngineAction.SPAWN], [])
    talk.engine_up()
    if asked["method"] == "tools/list":
        assert "result" in talk.answer(1)
    else:
        assert talk.ids() == [1]


def test_what_still_is_in_the_way_is_told_to_the_call_that_looked() -> None:
    talk = unavailable()
    talk.wait(4.0)
    talk.says(1, call(1, ADD))
    talk.dispatcher.unstartable(talk.now, "held by pid 9", "end pid 9", permanent=False)
    talk.turn()
    assert "unavailable for 4 s (held by pid 9)" in talk.answer(1)["error"]["message"]


@pytest.mark.parametrize("reason", ["no_mempalace", "import_failed"])
def test_what_is_seen_in_the_middle_of_an_upgrade_passes(reason: str) -> None:
    """pip removes the old package before it installs the new one; an engine that has been ready will be again."""
    talk = Talk()
    talk.dies()
    talk.dispatcher.start(talk.now)
    talk.dispatcher.spawned(talk.now, 2)
    fault = {"reason": reason, "message": "half of it is there", "hint": ""}
    talk.dispatcher.frame(Frame("fail", tag="70", payload=json.dumps(fault).encode()), talk.now)
    talk.dies()
    assert talk.dispatcher.supervisor.state == EngineState.UNAVAILABLE
    assert talk.dispatcher.supervisor.next_deadline() is not None


def test_calls_wait_while_a_probe_is_under_way_and_fail_with_it() -> None:
    talk = unavailable()
    talk.wait(10.0)
    talk.says(1, call(1, ADD))
    assert talk.heard(1) == []
    talk.dispatcher.spawned(talk.now, 2)
    talk.dies()
    assert talk.code(1) == errors.ENGINE_DOWN


def test_large_responses_are_not_kept_for_outcomes() -> None:
    talk = Talk()
    talk.greets(1, "s", 1)
    talk.says(1, call(1, ADD))
    talk.done(talk.inside[0], result(1, "x" * KEEP_BYTES))
    talk.heard(1)
    talk.asks(1, 1, 2)
    assert talk.answer(1)["result"]["outcomes"]["2"] == {"state": "done"}


# -- prefetches and counters


def test_the_text_of_calls_that_wait_is_told_ahead_once() -> None:
    talk = talk_of(SEARCH, SEARCH, SEARCH)
    assert [frame.n for frame in talk.prefetches] == [2]
    talk.opens(2)
    talk.says(2, call(9, ADD, content="x"))
    assert [frame.n for frame in talk.prefetches] == [2, 4]
    talk.done(talk.frame(1))
    assert [frame.n for frame in talk.prefetches] == [2, 4, 3]


def test_errors_are_counted() -> None:
    talk = talk_of(SEARCH)
    talk.done(talk.inside[0], b'{"id":1,"error":{"code":-32000,"message":"no"}}', code=-32000)
    assert talk.code(1) == -32000
    assert talk.dispatcher.counters["errors"] == 1


def test_nothing_goes_in_while_the_engine_warms_up() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, call(1, SEARCH))
    talk.dispatcher.spawned(talk.now, 1)
    talk.dispatcher.frame(Frame("hello", payload=b"{}"), talk.now)
    assert talk.ids() == []
    talk.dispatcher.frame(Frame("ready", payload=b"{}"), talk.now)
    talk.turn()
    assert talk.ids() == [1]


# -- the lease


def unconfirmed(*tools: str) -> Talk:
    """As on a foreign kernel: the confirmation takes its time."""
    talk = Talk()
    talk.confirms = False
    talk.opens(1)
    talk.says(1, *(call(n, tool, query="x") for n, tool in enumerate(tools, 1)))
    return talk


def test_nothing_is_sent_before_the_lease_is_confirmed() -> None:
    talk = unconfirmed(SEARCH, KG_ADD)
    assert talk.confirmations() == 1, "asked once"
    assert talk.ids() == []
    assert not talk.dispatcher.resting, "the busy flag must not fall meanwhile"
    talk.lease()
    talk.turn()
    assert talk.ids() == [1, 2]
    talk.done(talk.frame(1))
    assert talk.confirmations() == 0, "nothing to send"
    talk.says(1, call(3, SEARCH))
    assert talk.confirmations() == 1, "each time anew"


def test_a_call_can_be_withdrawn_until_the_lease_is_confirmed() -> None:
    talk = unconfirmed(SEARCH, KG_ADD)
    talk.says(1, cancel(1))
    talk.lease()
    talk.turn()
    assert talk.ids() == [2]


def test_an_engine_that_dies_before_the_lease_is_confirmed_gets_nothing() -> None:
    talk = unconfirmed(DIARY)
    talk.dies()
    talk.lease()
    talk.turn()
    assert talk.ids() == []
    talk.confirms = True
    talk.recovers()
    assert talk.ids() == [1]


def test_nothing_is_sent_once_the_lease_is_lost() -> None:
    talk = unconfirmed(DIARY)
    talk.leased = False
    talk.lease()
    talk.says(1, call(2, KG_ADD))
    assert talk.ids() == []
    assert talk.heard(1) == []
    assert talk.dispatcher.resting
    talk.protocol.drain(talk.now, "the palace is no longer ours", at_once=True)
    talk.turn()
    assert [answer["error"]["code"] for answer in talk.heard(1)] == [errors.NOT_EXECUTED] * 2
