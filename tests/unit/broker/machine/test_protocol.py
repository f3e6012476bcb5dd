"""The broker's protocol as its clients see it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.scheduler import Limits
from mempalace_broker.protocol.framing import TooLong
from mempalace_broker.protocol.hello import HELLO, OUTCOMES, hello_request
from tests.unit.broker.machine.dialogue import (
    ADD,
    DIARY,
    KG_ADD,
    KG_QUERY,
    PALACE,
    SEARCH,
    SECRET,
    Talk,
    call,
    cancel,
    key,
    request,
)


def test_a_call_goes_to_the_engine_verbatim_and_its_answer_back_verbatim() -> None:
    talk = Talk()
    talk.opens(1)
    raw = b' {"params": {"name": "mempalace_search", "arguments": {"q": "\xc3\xa9"}}, "id": 1, "method": "tools/call"}'
    talk.says(1, raw)
    (frame,) = talk.inside
    assert frame.payload == raw
    assert (frame.lane, frame.tag) == ("palace", "-")
    talk.done(frame, b'{"jsonrpc": "2.0",  "id": 1, "result": {"x":  1}}')
    assert talk.seen[-1] == fx.Send(1, b'{"jsonrpc": "2.0",  "id": 1, "result": {"x":  1}}\n')


def test_a_write_is_named_for_the_journal() -> None:
    talk = Talk()
    talk.opens(5)
    talk.says(5, call(1, ADD, content="x"))
    assert talk.inside[0].tag == "raw0x5.0.1"
    talk.greets(6, "s1", 3)
    talk.done(talk.inside[0])
    talk.says(6, call(1, ADD, content="x"))
    assert talk.inside[0].tag == key(3, 2)


def test_initialize_and_ping_need_no_engine() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "initialize", protocolVersion="2025-06-18"), request("p", "ping"))
    first, second = talk.heard(1)
    assert first["result"]["protocolVersion"] == "2025-06-18"
    assert first["result"]["serverInfo"] == {"name": "mempalace", "version": "3.11.0"}
    assert second == {"jsonrpc": "2.0", "id": "p", "result": {}}


def test_an_unknown_method_is_answered_at_once() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "server/discover"))
    assert talk.code(1) == errors.METHOD_NOT_FOUND
    talk.says(1, request(2, "broker/dance"))
    assert talk.code(1) == errors.METHOD_NOT_FOUND


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", errors.PARSE_ERROR),
        (b"\xff\xfe", errors.PARSE_ERROR),
        (b"7", errors.INVALID_REQUEST),
        (b"[]", errors.INVALID_REQUEST),
        (b'{"id":1}', errors.INVALID_REQUEST),
        (b'{"id":null,"method":"ping"}', errors.INVALID_REQUEST),
        (b'{"id":1,"method":"tools/call","params":[]}', errors.INVALID_PARAMS),
        (b"[" * 5000 + b"]" * 5000, errors.INVALID_REQUEST),
    ],
)
def test_bad_lines_are_answered_and_the_session_lives_on(line: bytes, code: int) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, line)
    assert talk.code(1) == code
    talk.says(1, request(2, "ping"))
    assert talk.answer(1)["id"] == 2


@pytest.mark.parametrize("line", [b"", b"  ", b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"method":"notifications/x"}'])
def test_what_needs_no_answer_gets_none(line: bytes) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, line)
    assert talk.heard(1) == []


def test_a_tool_call_without_id_is_not_executed() -> None:
    talk = Talk()
    talk.opens(1)
    message = call(1, ADD, content="x")
    del message["id"]
    talk.says(1, message)
    assert (talk.inside, talk.heard(1)) == ([], [])


def test_a_line_too_long_is_refused_and_counted() -> None:
    talk = Talk()
    talk.opens(1)
    talk.reads(1, TooLong(10), json.dumps(call(1, ADD)).encode())
    talk.turn()
    assert talk.code(1) == errors.INVALID_REQUEST
    assert talk.inside[0].tag.endswith(".2")
    talk.gone(1)
    talk.reads(1, TooLong(10))  # nobody there any more


def test_ids_keep_value_and_type() -> None:
    talk = Talk()
    talk.opens(1)
    ids: list[object] = ["7", 7, 10**30, 0, "", -1, 7.5, "\U0001f642"]
    for id_ in ids:
        talk.says(1, call(id_, KG_QUERY))
    heard = []
    while talk.inside:
        talk.done(talk.inside[0])
        heard += [answer["id"] for answer in talk.heard(1)]
    assert [(type(id_), id_) for id_ in heard] == [(type(id_), id_) for id_ in ids]


def test_of_two_calls_with_one_id_each_is_answered() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, SEARCH, query="a"), call(1, SEARCH, query="b"))
    talk.done(talk.inside[0])
    talk.done(talk.inside[0])
    assert [answer["id"] for answer in talk.heard(1)] == [1, 1]
    assert talk.protocol.sessions[1].open_calls == 0


def test_a_batch_is_answered_element_by_element() -> None:
    talk = Talk()
    talk.opens(1)
    batch = [request(1, "ping"), call(2, ADD, content="a"), 7, cancel(9), call(3, DIARY, entry="b")]
    talk.says(1, batch)
    talk.done(talk.frame(2))
    talk.done(talk.frame(3))
    assert [answer["id"] for answer in talk.heard(1)] == [1, None, 2, 3]


def test_writes_of_one_batch_have_names_of_their_own() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, [call(1, KG_ADD), call(2, KG_ADD)])
    assert [frame.tag for frame in talk.inside] == ["raw0x1.0.1.1", "raw0x1.0.1.2"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_batch_with_a_number_that_json_has_not_harms_nobody(number: str) -> None:
    talk = Talk()
    talk.opens(1)
    line = json.dumps([call(1, SEARCH, x="@"), request(2, "ping")]).replace('"@"', number)
    talk.says(1, line.encode())
    while talk.inside:
        talk.done(talk.inside[0])
    assert {answer["id"] for answer in talk.heard(1)} == {1, 2}


# -- cancel


def test_cancel_withdraws_what_waits_and_is_not_answered() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, SEARCH), call(2, ADD), call("2", ADD), cancel(2))
    talk.done(talk.frame(1))
    assert talk.ids() == ["2"]
    assert [answer["id"] for answer in talk.heard(1)] == [1]
    assert talk.protocol.counters["cancelled"] == 1


def test_what_runs_goes_on_after_its_cancellation_and_is_not_answered() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, ADD))
    talk.says(1, cancel(1), call(2, ADD))
    assert talk.ids() == [1], "it still holds the lane"
    talk.done(talk.frame(1))
    talk.done(talk.frame(2))
    assert [answer["id"] for answer in talk.heard(1)] == [2]
    assert talk.protocol.counters["cancelled"] == 1


def test_tools_list_can_be_cancelled_and_initialize_cannot() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"), request("1", "tools/list"), cancel("1"), request(2, "initialize"), cancel(2))
    talk.engine_up()
    assert [answer["id"] for answer in talk.heard(1)] == [2, 1]


def test_cancel_of_what_is_unknown_or_answered_does_nothing() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, ADD), cancel(99), cancel(None), cancel({"a": 1}), cancel("1"))
    assert talk.ids() == [1]
    talk.done(talk.frame(1))
    talk.says(1, cancel(1))
    assert [answer["id"] for answer in talk.heard(1)] == [1]
    assert talk.protocol.counters["cancelled"] == 0


def test_a_client_that_ended_and_cancelled_all_is_let_go() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, ADD))
    talk.protocol.half_closed(1)
    talk.says(1, cancel(1))
    assert talk.closes() == [1]


def test_one_client_cannot_cancel_the_other_ones_calls() -> None:
    talk = Talk()
    talk.opens(1, 2)
    talk.says(1, call(1, SEARCH), call(2, SEARCH))
    talk.says(2, cancel(2))
    talk.done(talk.frame(1))
    assert talk.ids() == [2]


# -- tools/list


def test_tools_list_waits_for_the_engine() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"))
    assert talk.heard(1) == []
    talk.engine_up()
    assert talk.answer(1)["result"]["tools"][0]["name"] == "mempalace_search"
    talk.says(1, request(2, "tools/list"))
    assert talk.answer(1)["id"] == 2


def test_tools_list_does_not_wait_for_ever() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"))
    talk.wait(119.9)
    assert talk.heard(1) == []
    talk.wait(0.2)
    assert talk.code(1) == errors.ENGINE_DOWN


def test_tools_list_fails_with_the_reason_when_no_engine_can_come() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"))
    talk.dispatcher.unstartable(talk.now, "no mempalace here", "pip install mempalace", permanent=True)
    talk.turn()
    error = talk.answer(1)["error"]
    assert error["code"] == errors.ENGINE_DOWN
    assert "no mempalace here" in error["message"]
    assert "Hint: pip install mempalace" in error["message"]
    talk.says(1, request(2, "tools/list"), call(3, SEARCH))
    assert [answer["error"]["code"] for answer in talk.heard(1)] == [errors.ENGINE_DOWN] * 2


def test_tools_of_the_cache_are_told_before_the_engine_is_up() -> None:
    talk = Talk()
    (saved,) = [effect for effect in talk.seen if isinstance(effect, fx.SaveAnswers)]
    other = Talk(up=False)
    other.protocol.answers.load(saved.data, "3.11.0")
    other.opens(1)
    other.says(1, request(1, "tools/list"))
    assert len(other.answer(1)["result"]["tools"]) == 4


def test_what_each_engine_reports_is_published_even_if_the_cache_has_it_already() -> None:
    talk = Talk()
    talk.dies()
    talk.recovers()
    kinds = [type(effect) for effect in talk.seen]
    assert (kinds.count(fx.PublishTools), kinds.count(fx.SaveAnswers)) == (2, 1)


def test_a_client_that_leaves_wants_no_tools_any_more() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"))
    talk.gone(1)
    talk.engine_up()
    assert talk.heard(1) == []


# -- hello


def test_hello_tells_limits_and_palace() -> None:
    talk = Talk(limits=Limits(wait_s=1.0, run_s=2.0, init_s=3.0))
    talk.greets(1)
    welcome = talk.answer(1)
    assert welcome["id"] == HELLO
    assert welcome["result"]["limits"] == {"wait_s": 1.0, "run_s": 2.0, "init_s": 3.0}
    assert welcome["result"]["palace"]["path"] == PALACE.path
    assert welcome["result"]["record"] == "r"
    assert welcome["result"]["notice"] is None
    assert talk.protocol.sessions[1].pid == 7


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"wire": 2}, errors.OTHER_PALACE, "wire version"),
        ({"palace": {**PALACE.as_json(), "path": "/other"}}, errors.OTHER_PALACE, "/other"),
        ({"palace": {**PALACE.as_json(), "backend": "qdrant"}}, errors.OTHER_PALACE, "qdrant"),
        ({"palace": {"path": 7}}, errors.OTHER_PALACE, "palace identity"),
        ({"session": "no/slash"}, errors.INVALID_PARAMS, "letters and digits"),
        ({"session": "x" * 65}, errors.INVALID_PARAMS, "letters and digits"),
        ({"session": 7}, errors.INVALID_PARAMS, "letters and digits"),
        ({"connection": 0}, errors.INVALID_PARAMS, "connection"),
        ({"connection": "1"}, errors.INVALID_PARAMS, "connection"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_and_the_connection_closed(
    changes: dict[str, Any], code: int, text: str
) -> None:
    talk = Talk()
    talk.greets(1, **changes)
    error = talk.answer(1)["error"]
    assert error["code"] == code
    assert text in error["message"]
    assert talk.closes() == [1]


def test_hello_must_come_first_and_once() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(1, "ping"))
    talk.says(1, hello_request(session="a", secret=SECRET, connection=1, identity=PALACE, client="c", pid=1))
    assert talk.heard(1)[1]["error"]["code"] == errors.INVALID_PARAMS
    assert talk.closes() == [1]
    talk.greets(2)
    talk.says(2, hello_request(session="a", secret=SECRET, connection=1, identity=PALACE, client="c", pid=1))
    assert talk.closes() == [2]


def test_a_client_of_another_graph_is_served_without_it() -> None:
    talk = Talk()
    talk.greets(1, palace={**PALACE.as_json(), "graph": "/other/kg.sqlite3", "by": "flag"})
    notice = talk.answer(1)["result"]["notice"]
    assert "/other/kg.sqlite3" in notice
    talk.says(1, call(1, KG_ADD), call(2, ADD))
    assert talk.answer(1)["error"] == {"code": errors.OTHER_PALACE, "message": notice}
    assert talk.ids() == [2]


def test_the_same_client_on_a_new_connection_replaces_its_old_one() -> None:
    talk = Talk()
    talk.greets(1, "s", 1)
    talk.says(1, call(1, ADD), call(2, ADD))
    talk.greets(2, "s", 2)
    assert talk.closes() == [1]
    talk.says(1, call(3, ADD))  # came late, from the socket's buffer
    assert talk.ids() == [1]
    talk.asks(2, 1, 2, 3, 4)
    assert [answer["id"] for answer in talk.heard(2)] == [HELLO], "the first may still be done"
    talk.done(talk.frame(1))
    outcomes = talk.answer(2)["result"]["outcomes"]
    assert outcomes["2"]["state"] == "done"
    assert outcomes["2"]["response"]["id"] == 1
    assert outcomes["3"] == outcomes["4"] == {"state": "not_started"}
    assert talk.heard(1)[1:] == [], "nothing for the old connection but its welcome"
    assert talk.inside == []


THIEF = "7" * 32


def test_a_session_of_another_secret_is_left_alone() -> None:
    talk = Talk()
    talk.greets(1, "s", 1)
    talk.says(1, call(1, ADD))
    talk.heard(1)
    talk.greets(2, "s", 2, secret=THIEF)
    error = talk.answer(2)["error"]
    assert (error["code"], error["message"]) == (errors.INVALID_PARAMS, "this session is another client's")
    assert talk.closes() == [2]
    talk.done(talk.frame(1))
    assert talk.answer(1)["id"] == 1


def test_outcomes_are_told_to_the_owner_of_the_secret_alone() -> None:
    talk = Talk(up=False, settled=False)
    talk.dispatcher.journal({key(1, 2): b'{"id":1,"result":{}}'}, set(), talk.now, float("-inf"))
    for conn, secret, state in ((1, SECRET, "done"), (2, THIEF, "not_started")):
        talk.greets(conn, f"s{conn}", 2, secret=secret)
        talk.heard(conn)
        talk.asks(conn, 1, 2)
        assert talk.answer(conn)["result"]["outcomes"]["2"]["state"] == state


def test_a_hello_without_a_secret_is_served_without_outcomes() -> None:
    talk = Talk()
    talk.greets(1, secret=None)
    welcome = talk.answer(1)["result"]
    assert welcome["capabilities"] == ["secret"]
    assert "another version" in welcome["notice"]
    talk.says(1, call(1, ADD))
    assert talk.inside[0].tag == "raw0x1.0.2"
    talk.greets(2, secret=None, connection=2)
    assert talk.closes() == [], "nobody can prove to be the same client"
    talk.asks(1, 1, 2)
    assert talk.code(1) == errors.INVALID_PARAMS


@pytest.mark.parametrize(
    "bad",
    [{"connection": n} for n in (0, 10**500, True, "1")] + [{"secret": s} for s in ("short", "x" * 65, 7, "ä" * 32)],
    ids=repr,
)
def test_a_hello_out_of_bounds_is_refused(bad: dict[str, Any]) -> None:
    talk = Talk()
    talk.greets(1, **bad)
    assert talk.code(1) == errors.INVALID_PARAMS
    assert talk.closes() == [1]


# -- outcomes


@pytest.mark.parametrize(
    "bad",
    [{"connection": n} for n in (0, -1, 10**500, True, None)]
    + [{"lines": lines} for lines in ([0], [10**500], ["2"], [True], [2, None], [2] * 10_001, 7)],
    ids=lambda bad: repr(bad)[:30],
)
def test_a_question_out_of_bounds_is_refused(bad: dict[str, Any]) -> None:
    talk = Talk()
    talk.greets(1)
    talk.heard(1)
    talk.says(1, request(OUTCOMES, OUTCOMES, **({"connection": 1, "lines": [2]} | bad)))
    assert talk.code(1) == errors.INVALID_PARAMS


@pytest.mark.parametrize("age", [10**500, 1e300, float("nan"), float("inf"), True, []])
def test_an_age_that_makes_no_sense_does_no_harm(age: object) -> None:
    talk = Talk()
    talk.greets(1)
    talk.heard(1)
    talk.says(1, request(OUTCOMES, OUTCOMES, connection=1, lines=[2], age_s=age, epoch=10**500))
    assert talk.code(1) == 0


def test_one_question_waits_at_a_time() -> None:
    talk = Talk(up=False, settled=False)
    talk.greets(1)
    talk.heard(1)
    talk.asks(1, 1, 2)
    talk.asks(1, 1, 2)
    assert talk.code(1) == errors.INVALID_PARAMS
    talk.dispatcher.journal({}, set(), talk.now, float("-inf"))
    talk.turn()
    talk.asks(1, 1, 2)
    assert [answer["id"] for answer in talk.heard(1)] == [OUTCOMES, OUTCOMES]


def test_outcomes_wait_until_the_journal_was_read() -> None:
    talk = Talk(up=False, settled=False)
    talk.greets(1, "s", 2)
    talk.asks(1, 1, 2, 3, 4, 5)
    assert len(talk.heard(1)) == 1
    talk.dispatcher.journal({key(1, 2): b'{"id":1,"result":{}}', key(1, 3): None}, {key(1, 4)}, talk.now, float("-inf"))
    talk.turn()
    assert talk.answer(1)["result"]["outcomes"] == {
        "2": {"state": "done", "response": {"id": 1, "result": {}}},
        "3": {"state": "done"},
        "4": {"state": "unknown"},
        "5": {"state": "not_started"},
    }


def test_a_refusal_of_a_stale_engine_proves_nothing() -> None:
    talk = Talk(up=False, settled=False)
    stale = b'{"id":1,"error":{"code":-32005,"message":"upgraded"}}'
    stored = b'{"id":1,"result":{"text":"-32005"}}'
    talk.dispatcher.journal({key(1, 2): stale, key(1, 3): stored}, set(), talk.now, float("-inf"))
    talk.greets(1, "s", 2)
    talk.heard(1)
    talk.asks(1, 1, 2, 3)
    outcomes = talk.answer(1)["result"]["outcomes"]
    assert {n: fate["state"] for n, fate in outcomes.items()} == {"2": "unknown", "3": "done"}


def test_outcomes_older_than_the_journal_are_unknown() -> None:
    talk = Talk(up=False, settled=False)
    talk.dispatcher.journal({}, set(), talk.now, talk.now - 10.0)
    talk.greets(1, "s", 2)
    talk.heard(1)
    for age, state in ((8.0, "not_started"), (10.0, "unknown"), (-1, "unknown"), ("x", "unknown")):
        params = {"connection": 1, "lines": [2], "age_s": age}
        talk.says(1, request(OUTCOMES, OUTCOMES, **params))
        assert talk.answer(1)["result"]["outcomes"]["2"] == {"state": state}, age


def test_outcomes_of_brokers_whose_journal_is_not_ours_are_unknown_however_young() -> None:
    talk = Talk(up=False, settled=False, since=5)
    talk.dispatcher.journal({key(1, 3): None}, set(), talk.now, talk.now - 1000.0)
    talk.greets(1, "s", 2)
    talk.heard(1)
    for epoch, state in ((4, "unknown"), (5, "not_started"), ("x", "not_started")):
        talk.asks(1, 1, 2, 3, epoch=epoch)
        outcomes = talk.answer(1)["result"]["outcomes"]
        assert outcomes["2"] == {"state": state}, epoch
        assert outcomes["3"]["state"] == "done"


def test_outcomes_are_for_the_greeted() -> None:
    talk = Talk()
    talk.opens(1)
    talk.asks(1, 1, 2)
    assert talk.code(1) == errors.INVALID_PARAMS
    talk.greets(2)
    talk.heard(2)
    talk.says(2, request(1, OUTCOMES, connection="1", lines=[]), request(2, OUTCOMES, connection=1, lines=7))
    assert [answer["error"]["code"] for answer in talk.heard(2)] == [errors.INVALID_PARAMS] * 2


# -- the end of a connection


def test_what_a_lost_client_had_waiting_is_withdrawn() -> None:
    talk = Talk()
    talk.opens(1, 2)
    talk.says(1, call(1, ADD), call(2, ADD))
    talk.says(2, call(3, SEARCH))
    talk.gone(1)
    talk.done(talk.frame(1))
    assert talk.ids() == [3]
    assert talk.heard(1) == []
    talk.gone(1)  # told twice


def test_a_bare_client_that_closed_its_end_still_gets_its_answers() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, SEARCH), call(2, KG_QUERY))
    talk.protocol.half_closed(1)
    talk.done(talk.frame(1))
    assert talk.closes() == []
    talk.done(talk.frame(2))
    assert [answer["id"] for answer in talk.heard(1)] == [1, 2]
    assert talk.closes() == [1]
    talk.protocol.half_closed(1)


def test_a_bare_client_that_closed_its_end_gets_its_tools() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"))
    talk.protocol.half_closed(1)
    talk.engine_up()
    assert talk.code(1) == 0
    assert talk.closes() == [1]


def test_what_another_client_waits_for_keeps_nobody_open() -> None:
    talk = Talk(up=False)
    talk.opens(1, 2)
    talk.says(1, request(1, "tools/list"))
    talk.protocol.half_closed(2)
    talk.turn()
    assert talk.closes() == [2]


def test_a_shim_that_closed_its_end_is_gone() -> None:
    talk = Talk()
    talk.greets(1)
    talk.says(1, call(1, SEARCH))
    talk.protocol.half_closed(1)
    talk.turn()
    assert talk.closes() == [1]
    talk.opens(2)
    talk.protocol.half_closed(2)
    talk.turn()
    assert talk.closes() == [2]


def test_too_many_calls_of_one_session_are_refused_and_the_others_go_on() -> None:
    talk = Talk(limits=Limits(session_calls=2))
    talk.opens(1, 2)
    talk.says(1, call(1, SEARCH), call(2, SEARCH), call(3, SEARCH))
    assert talk.code(1) == errors.OVERLOADED
    talk.says(2, call(1, KG_QUERY))
    assert len(talk.ids()) == 2
    talk.done(talk.frame(1))
    talk.says(1, call(4, SEARCH))
    assert talk.code(1) == 0


# -- leaving


def test_idle_means_no_session_and_no_work() -> None:
    talk = Talk(idle_s=10.0)
    talk.greets(1)
    talk.says(1, call(1, ADD))
    talk.wait(20.0)
    talk.gone(1)
    talk.wait(20.0)
    assert talk.quits() == [], "the write still runs"
    talk.done(talk.inside[0])
    talk.wait(9.9)
    assert talk.quits() == []
    talk.wait(0.2)
    assert talk.quits() == ["idle for 10 s"]


def test_a_look_at_the_status_does_not_keep_the_broker_up() -> None:
    talk = Talk(idle_s=10.0)
    talk.wait(9.0)
    talk.opens(1)
    talk.says(1, request(1, "broker/status"))
    assert talk.answer(1)["result"] == {"now": 109.0}
    talk.wait(2.0)
    assert talk.quits() == ["idle for 10 s"]


def test_a_bare_client_keeps_the_broker_up_once_it_asked_for_something() -> None:
    talk = Talk(idle_s=10.0)
    talk.opens(1)
    talk.says(1, request(1, "initialize"))
    talk.wait(50.0)
    assert talk.quits() == []
    talk.gone(1)
    assert talk.protocol.next_deadline() == talk.now + 10.0


def test_no_idle_time_means_for_ever() -> None:
    talk = Talk(idle_s=0.0)
    talk.wait(1e6)
    assert talk.quits() == []


def test_draining_lets_what_runs_finish_and_turns_the_rest_away() -> None:
    talk = Talk()
    talk.opens(1)
    talk.greets(2)
    talk.heard(2)
    talk.says(1, call(1, SEARCH), call(2, ADD))
    talk.says(2, call(1, ADD))
    talk.says(1, request(9, "broker/stop", reason="update"))
    told, turned_away = talk.heard(1)
    assert told["result"] == {"stopping": True, "pid": 42}
    assert (turned_away["id"], turned_away["error"]["code"]) == (2, errors.NOT_EXECUTED)
    assert any(isinstance(effect, fx.Retire) for effect in talk.seen)
    talk.says(1, call(3, ADD))
    assert talk.code(1) == errors.NOT_EXECUTED
    talk.says(2, call(3, ADD))
    assert talk.heard(2) == [], "a shim asks the next broker"
    assert talk.quits() == []
    talk.done(talk.frame(1))
    assert talk.code(1) == 0
    assert talk.quits() == ["update"]


def test_draining_ends_in_time() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, ADD), request(2, "tools/list"))
    talk.heard(1)
    talk.protocol.drain(talk.now, "told to")
    talk.wait(4.9)
    assert talk.quits() == []
    talk.wait(0.2)
    assert talk.quits() == ["told to"]
    assert talk.code(1) == errors.OUTCOME_UNKNOWN


def test_stop_now_answers_the_bare_and_leaves() -> None:
    talk = Talk(up=False)
    talk.opens(1)
    talk.says(1, call(1, ADD), request(2, "tools/list"), request(3, "broker/stop", mode="now"))
    codes = {answer["id"]: answer.get("error", {}).get("code") for answer in talk.heard(1)}
    assert codes == {1: errors.NOT_EXECUTED, 2: errors.NOT_EXECUTED, 3: None}
    assert talk.quits() == ["stop"]


def test_stop_now_while_draining() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, SEARCH))
    talk.protocol.drain(talk.now, "first")
    talk.protocol.drain(talk.now, "second")
    talk.turn()
    assert talk.quits() == []
    talk.protocol.drain(talk.now, "third", at_once=True)
    talk.turn()
    assert talk.quits() == ["first"]
    assert talk.code(1) == errors.NOT_EXECUTED, "a read changed nothing"


def test_an_engine_that_dies_while_draining_leaves_no_bare_client_waiting() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, ADD))
    talk.protocol.drain(talk.now, "told to")
    talk.dies(begun=("raw0x1.0.1",))
    assert talk.quits() == ["told to"]
    assert talk.code(1) == errors.OUTCOME_UNKNOWN


def test_stats() -> None:
    talk = Talk()
    talk.opens(1)
    talk.greets(2)
    talk.says(1, call(1, SEARCH), call(2, ADD))
    talk.says(2, call(1, "mempalace_sync"), request(2, "ping"))
    counters = talk.protocol.counters
    assert (counters["calls"], counters["reads"], counters["writes"], counters["sessions"]) == (3, 2, 1, 2)


def test_a_tool_that_the_engine_has_not_harms_nobody() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, call(1, "no_such_tool"))
    talk.says(1, call(2, SEARCH))
    assert [(frame.lane, frame.tag) for frame in talk.inside] == [("free", "-"), ("palace", "-")]


def test_next_deadline_is_the_earliest() -> None:
    talk = Talk(idle_s=10.0, up=False)
    talk.opens(1)
    talk.says(1, request(1, "tools/list"))
    assert talk.protocol.next_deadline() == pytest.approx(100.05), "the lock is tried again"
    talk.dispatcher.spawned(talk.now, 1)
    assert talk.protocol.next_deadline() == 220.0
    talk.says(1, call(2, SEARCH))
    assert talk.protocol.next_deadline() == 160.0


# -- read-only sessions


def test_a_read_only_session_neither_sees_nor_runs_what_writes_and_others_do() -> None:
    talk = Talk()
    talk.greets(1, read_only=True)
    talk.greets(2, "another")
    for conn in (1, 2):
        talk.says(conn, request("list", "tools/list"), call("add", ADD), call("odd", "strange"), call("find", SEARCH))
    _, listed, *refused = talk.heard(1)
    assert [tool["name"] for tool in listed["result"]["tools"]] == [SEARCH]
    assert [answer["error"] for answer in refused] == [
        {"code": -32003, "message": "Server is in read-only mode; this tool is disabled", "data": {"tool": name}}
        for name in (ADD, "strange")
    ]
    assert len(talk.heard(2)[1]["result"]["tools"]) == 4
    talk.done(talk.inside[0])
    assert talk.ids(), "what it may call goes to the engine"


@pytest.mark.parametrize(("value", "read_only"), [(True, True), (False, False), (None, False), (1, True), ("no", True)])
def test_in_doubt_a_session_is_read_only(value: object, read_only: bool) -> None:
    talk = Talk()
    talk.greets(1, read_only=value)
    talk.heard(1)
    talk.says(1, call(1, ADD))
    assert bool(talk.heard(1)) is read_only


def test_only_a_connection_with_a_higher_number_replaces_that_of_its_session() -> None:
    talk = Talk()
    talk.greets(1, connection=2)
    talk.heard(1)
    for late, number in ((2, 2), (3, 1)):
        talk.greets(late, connection=number)
        error = talk.answer(late)["error"]
        assert (error["code"], "or a higher one" in error["message"]) == (errors.INVALID_PARAMS, True)
    assert talk.closes() == [2, 3]
    talk.greets(4, connection=3)
    assert talk.closes() == [1]
    assert talk.answer(4)["result"]
