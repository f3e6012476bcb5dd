from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NOT_EXECUTED,
    OTHER_PALACE,
    OUTCOME_UNKNOWN,
    PARSE_ERROR,
)
from mempalace_broker.protocol.constant_answers import ConstantAnswers
from mempalace_broker.protocol.framing import MAX_LINE
from mempalace_broker.protocol.hello import HELLO, OUTCOMES
from mempalace_broker.shim.machine.agent_stream import MAX_BATCH
from mempalace_broker.shim.machine.broker_connection import MAX_NOISE
from mempalace_broker.shim.machine.delivery import MAX_TRIES
from mempalace_broker.shim.machine.pending_requests import ASK_GRACE_S, CACHE_AFTER_S, NO_DEADLINE
from mempalace_broker.shim.machine.protocol import EOF_GRACE_S, FLUSH_S, MAX_HELD, MAX_QUEUED, MAX_UNANSWERED
from tests.unit.shim.machine.dialogue import ADD, SEARCH, Talk, call, cancelled, drain, initialize, result

CACHE = json.dumps({
    "schema": 1, "version": "3.11.0", "protocols": ["2025-11-25", "2025-06-18"],
    "tools": [{"name": "mempalace_status"}],
    "initialize": {"capabilities": {"tools": {}}, "serverInfo": {"name": "mempalace", "version": "3.11.0"}},
}).encode()  # fmt: skip


@pytest.fixture
def talk() -> Talk:
    return Talk()


# -- without faults


def test_hello_is_first_and_early_questions_go_with_it(talk: Talk) -> None:
    talk.agent(initialize(), {"method": "notifications/initialized"}, call(1))
    talk.open()
    first, second = talk.heard_by_broker()
    assert first["method"] == HELLO
    assert first["params"] | {"palace": None} == {
        "wire": 1, "session": "ab" * 16, "secret": "cd" * 16, "connection": 1, "palace": None, "client": "test",
        "pid": 7, "home": "/home/u",
    }  # fmt: skip
    assert second == initialize()
    talk.welcome()
    assert talk.heard_by_broker() == [{"jsonrpc": "2.0", "method": "notifications/initialized"}, call(1)]


def test_lines_pass_verbatim_in_both_directions(talk: Talk) -> None:
    talk.connect()
    odd = b' { "id" : 1.50, "method":"tools/call" ,"params":{"name":"mempalace_search","arguments":{"q":"\xff"}}} \r'
    talk.agent(odd)
    assert drain(talk.protocol.connection.to_broker) == odd + b"\n"
    answer = b'{"jsonrpc": "2.0", "id": 1.5, "result": {"big":   [1 ,2]}}'
    talk.broker(answer)
    assert drain(talk.protocol.to_agent) == answer + b"\n"


@pytest.mark.parametrize("id_", [0, "", "7", 7, 10**30, 1.5, "broker/hello", "broker/1"])
def test_any_legal_id_is_answered_as_it_came(talk: Talk, id_: Any) -> None:
    talk.connect()
    talk.agent(call(id_))
    (sent,) = talk.heard_by_broker()
    talk.broker(result(sent["id"], {"x": 1}))
    (heard,) = talk.heard_by_agent()
    assert heard == result(id_, {"x": 1})
    assert type(heard["id"]) is type(id_)


def test_equal_ids_in_flight_are_kept_apart(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(7, q="a"), call("7", q="b"), call(7, q="c"))
    sent = talk.heard_by_broker()
    assert len({json.dumps(message["id"]) for message in sent}) == 3
    for message in reversed(sent):
        talk.broker(result(message["id"], message["params"]["arguments"]))
    assert talk.heard_by_agent() == [result(7, {"q": "c"}), result("7", {"q": "b"}), result(7, {"q": "a"})]


def test_second_answer_to_one_request_is_dropped(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1))
    talk.broker(result(1), result(1), result(99))
    assert talk.heard_by_agent() == [result(1)]


def test_ping_is_answered_at_once_with_or_without_broker(talk: Talk) -> None:
    talk.agent({"id": "p", "method": "ping"})
    assert talk.heard_by_agent() == [result("p")]
    talk.connect()
    talk.agent({"id": 0, "method": "ping"})
    assert (talk.heard_by_agent(), talk.heard_by_broker()) == ([result(0)], [])


def test_unknown_methods_never_wait_for_a_broker(talk: Talk) -> None:
    discover = {"jsonrpc": "2.0", "id": "server-discover-probe-1", "method": "server/discover"}
    talk.agent(discover)
    assert talk.error["code"] == METHOD_NOT_FOUND
    talk.connect()
    talk.agent(discover)
    assert talk.heard_by_broker() == [discover]


def test_notifications_and_responses_get_no_answer(talk: Talk) -> None:
    talk.agent({"method": "ping"}, {"method": "tools/call", "params": {}}, {"id": 1, "result": {}}, b"", b"  ")
    talk.connect()
    talk.agent({"method": "tools/list"})
    assert talk.heard_by_agent() == []


def test_notification_of_the_broker_passes_unless_it_is_for_us(talk: Talk) -> None:
    talk.connect()
    talk.broker({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}, {"method": "broker/leaving"})
    assert [message["method"] for message in talk.heard_by_agent()] == ["notifications/tools/list_changed"]


# -- bad input


@pytest.mark.parametrize(("line", "code", "id_"), [
    (b"nonsense", PARSE_ERROR, None), (b"3", INVALID_REQUEST, None), (b"[]", INVALID_REQUEST, None),
    (b'{"id":4,"method":7}', INVALID_REQUEST, 4),
])  # fmt: skip
def test_bad_lines_are_answered_here_and_the_next_works(talk: Talk, line: bytes, code: int, id_: Any) -> None:
    talk.connect()
    talk.agent(line, call(1))
    (bad,) = talk.heard_by_agent()
    assert (bad["error"]["code"], bad["id"]) == (code, id_)
    assert talk.heard_by_broker() == [call(1)]


def test_line_beyond_the_limit_is_one_error(talk: Talk) -> None:
    for _ in range(MAX_LINE // (1 << 20) + 2):
        talk.protocol.agent_data(b"x" * (1 << 20), talk.now)
    talk.agent(b"", {"id": 1, "method": "ping"})
    too_long, pong = talk.heard_by_agent()
    assert too_long["error"]["code"] == INVALID_REQUEST
    assert pong == result(1)


def test_batch_is_answered_element_by_element(talk: Talk) -> None:
    talk.connect()
    talk.agent([call(1), 3, {"id": 2, "method": "ping"}, {"method": "notifications/x"}])
    assert talk.heard_by_broker() == [call(1), {"method": "notifications/x"}]
    bad, pong = talk.heard_by_agent()
    assert (bad["error"]["code"], pong) == (INVALID_REQUEST, result(2))


def test_huge_batch_is_one_error(talk: Talk) -> None:
    talk.agent([1] * (MAX_BATCH + 1))
    assert talk.error["code"] == INVALID_REQUEST


def test_element_too_deep_to_be_written_again_is_refused(talk: Talk) -> None:
    talk.connect()
    for depth in range(850, 1000):  # at one of these, a line that could be read can not be written
        line = b'[{"id":1,"method":"tools/call","params":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}]"
        talk.agent(line)
        refused = talk.heard_by_agent()
        sent = drain(talk.protocol.connection.to_broker)
        assert len(refused) + sent.count(b"\n") == 1, "either refused or passed on"
        talk.broker(result(1))
        drain(talk.protocol.to_agent)
    talk.agent({"id": 2, "method": "ping"})
    assert talk.heard_by_agent() == [result(2)]


def test_request_too_deep_to_be_written_again_is_refused(talk: Talk) -> None:
    """It has to be, under another id, because its own is taken."""
    talk.connect()
    talk.agent(call(1))
    drain(talk.protocol.connection.to_broker)
    answers = 0
    for depth in range(850, 1000):
        talk.agent(b'{"id":1,"method":"tools/call","params":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}")
        refused = talk.heard_by_agent()
        assert len(refused) + drain(talk.protocol.connection.to_broker).count(b"\n") == 1
        answers += len(refused)
    assert 0 < answers < 150


# -- file names


@pytest.mark.parametrize(("given", "sent"), [
    (".", "/work/dir"), ("a/./b/", "/work/dir/a/b"), ("../x", "/work/dir/../x"), ("~", "/home/u"), ("~/n", "/home/u/n"),
    ("/abs/./x", "/abs/./x"), ("~root/x", "~root/x"), ("https://x/y", "https://x/y"), ("", ""), (3, 3),
    ("a/x://../y", "/work/dir/a/x:/../y"),
])  # fmt: skip
def test_arguments_that_name_files_are_the_callers(talk: Talk, given: Any, sent: Any) -> None:
    talk.connect()
    talk.agent(call(1, "mempalace_mine", source=given, wing="w/../w"))
    (heard,) = talk.heard_by_broker()
    assert heard["params"]["arguments"] == {"source": sent, "wing": "w/../w"}


def test_a_broker_that_is_not_this_palaces_gets_no_call(talk: Talk) -> None:
    talk.verify = lambda welcome: f"it serves {welcome['palace']}." if "palace" in welcome else ""
    talk.agent(call(1, ADD))
    assert talk.connect(palace="/other") == []
    first = talk.error
    assert first["code"] == OTHER_PALACE
    assert "it serves /other" in first["message"]
    talk.agent(call(2, ADD))
    assert talk.heard_by_broker() == []
    assert talk.protocol.connection.broken
    talk.lose()
    talk.later(1)
    talk.agent(call(3, SEARCH))
    assert [heard["id"] for heard in talk.connect()] == [2, 3]


def test_fates_are_asked_by_the_generation_of_the_broker_that_had_the_write(talk: Talk) -> None:
    talk.connect(lease={"epoch": 7})
    talk.agent(call(1, ADD))
    talk.heard_by_broker()
    talk.lose()
    talk.later(1)
    (asked,) = talk.connect(lease={"epoch": 8})
    assert asked["method"] == OUTCOMES
    assert asked["params"]["epoch"] == 7


@pytest.mark.parametrize(("before", "after"), [([], ["secret"]), (["secret"], []), (["secret"], "secret")])
def test_what_a_broker_without_secrets_says_of_a_write_proves_nothing(
    talk: Talk, before: object, after: object
) -> None:
    talk.connect(lease={"epoch": 7}, capabilities=before)
    talk.agent(call(1, ADD))
    talk.heard_by_broker()
    talk.lose()
    talk.later(1)
    (asked,) = talk.connect(lease={"epoch": 8}, capabilities=after)
    assert asked["params"]["epoch"] == -1, "no broker has a journal of that time"


ELSEWHERE = {"files": {"map": {"/work/dir/a": "/Users/me/a"}}}


def test_a_broker_with_another_view_of_the_files_gets_its_own_names(talk: Talk) -> None:
    talk.connect(**ELSEWHERE)
    talk.agent(call(1, "mempalace_mine", source="a", wing="w"), call(2, SEARCH, query="/work/dir/a"))
    mine, search = talk.heard_by_broker()
    assert mine["params"]["arguments"] == {"source": "/Users/me/a", "wing": "w"}
    assert search["params"]["arguments"] == {"query": "/work/dir/a"}


def test_a_path_that_has_no_name_there_is_refused_and_never_sent(talk: Talk) -> None:
    talk.connect(**ELSEWHERE)
    talk.agent(call(1, "mempalace_mine", source="/opt/x"))
    assert talk.heard_by_broker() == []
    (answer,) = talk.heard_by_agent()
    assert answer["error"]["code"] == INVALID_PARAMS
    assert "'/opt/x'" in answer["error"]["message"]
    assert "[container.paths]" in answer["error"]["message"]


def test_each_broker_gets_the_names_of_its_own_view(talk: Talk) -> None:
    talk.connect(**ELSEWHERE)
    talk.agent(call(1, "mempalace_sync", project_dir="a"))
    (there,) = talk.heard_by_broker()
    talk.lose()
    (here,) = talk.connect()
    assert there["params"]["arguments"] == {"project_dir": "/Users/me/a"}
    assert here["params"]["arguments"] == {"project_dir": "/work/dir/a"}


# -- a lost broker


def test_reads_and_what_was_never_sent_go_out_again(talk: Talk) -> None:
    talk.agent(initialize(), {"method": "notifications/initialized"})
    talk.connect()
    talk.broker(result(0))
    talk.agent(call(1, SEARCH), {"id": 2, "method": "tools/list"})
    talk.lose()
    talk.agent(call(3, ADD))
    talk.heard_by_agent()
    heard = talk.connect()
    assert [(m.get("id"), m["method"]) for m in heard] == [
        ("broker/initialize", "initialize"), (2, "tools/list"), (None, "notifications/initialized"),
        (1, "tools/call"), (3, "tools/call"),
    ]  # fmt: skip
    talk.broker(result("broker/initialize", {"second": True}), result(2), result(1), result(3))
    assert talk.heard_by_agent() == [result(2), result(1), result(3)]


def test_unanswered_initialize_is_sent_again_as_it_was(talk: Talk) -> None:
    talk.agent(initialize("i"))
    talk.open()
    talk.lose()
    assert talk.connect() == [initialize("i")]
    talk.broker(result("i"))
    assert talk.heard_by_agent() == [result("i")]


def lost_write(talk: Talk, id_: Any = 5) -> list[Any]:
    """A write that was sent on a connection that is lost; what the next broker is told."""
    talk.connect()
    talk.agent(call(1, SEARCH), call(id_, ADD, content="x"))
    talk.broker(result(1))
    talk.later(3)
    talk.lose()
    talk.heard_by_broker(), talk.heard_by_agent()
    return talk.connect()


def test_fate_of_a_write_is_asked_for_by_its_ordinal(talk: Talk) -> None:
    (asked,) = lost_write(talk)
    assert asked["method"] == asked["id"] == OUTCOMES
    assert asked["params"] == {"connection": 1, "lines": [3], "age_s": 3.0}


def test_write_not_started_is_sent_again(talk: Talk) -> None:
    lost_write(talk)
    talk.outcomes({"3": {"state": "not_started"}})
    assert talk.heard_by_broker() == [call(5, ADD, content="x")]
    talk.broker(result(5))
    assert talk.heard_by_agent() == [result(5)]


@pytest.mark.parametrize("id_", [5, 'a,"b"'])
def test_write_that_ran_is_answered_with_what_it_returned(talk: Talk, id_: Any) -> None:
    lost_write(talk, id_)
    talk.outcomes({"3": {"state": "done", "response": result(id_, {"drawer": "d"})}})
    assert (talk.heard_by_agent(), talk.heard_by_broker()) == ([result(id_, {"drawer": "d"})], [])


def test_write_that_ran_and_whose_answer_is_lost(talk: Talk) -> None:
    lost_write(talk)
    talk.outcomes({"3": {"state": "done"}})
    error = talk.error
    assert error["code"] == OUTCOME_UNKNOWN
    assert "was executed" in error["message"]


@pytest.mark.parametrize("fates", [{"3": {"state": "unknown"}}, {}, {"3": 7}])
def test_write_of_unknown_fate_is_never_sent_again(talk: Talk, fates: dict[str, Any]) -> None:
    lost_write(talk)
    talk.outcomes(fates)
    error = talk.error
    assert error["code"] == OUTCOME_UNKNOWN
    assert "may or may not be stored" in error["message"]
    assert "mempalace_search" in error["message"]
    assert talk.heard_by_broker() == []


def test_broker_that_knows_no_outcomes_means_unknown(talk: Talk) -> None:
    lost_write(talk)
    talk.broker({"jsonrpc": "2.0", "id": OUTCOMES, "error": {"code": -32601, "message": "?"}})
    assert talk.error["code"] == OUTCOME_UNKNOWN


def test_later_calls_stay_behind_a_write_of_open_fate(talk: Talk) -> None:
    lost_write(talk)
    talk.agent(call(6, SEARCH), {"id": 7, "method": "tools/list"})
    assert [m["id"] for m in talk.heard_by_broker()] == [7]
    talk.outcomes({"3": {"state": "not_started"}})
    assert [m["id"] for m in talk.heard_by_broker()] == [5, 6]


def test_writes_of_two_lost_connections_are_asked_for_one_by_one(talk: Talk) -> None:
    lost_write(talk)
    talk.outcomes({"3": {"state": "not_started"}})
    talk.agent(call(8, ADD))
    talk.heard_by_broker()
    talk.lose()
    (first,) = talk.connect()
    assert first["params"]["connection"] == 2
    talk.lose()
    (again,) = talk.connect()
    assert again["params"] | {"age_s": 0} == {"connection": 2, "lines": [3, 4], "age_s": 0}
    talk.outcomes({"3": {"state": "done", "response": result(5)}, "4": {"state": "not_started"}})
    assert talk.heard_by_agent() == [result(5)]
    assert [m["id"] for m in talk.heard_by_broker()] == [8]


def test_a_call_that_kills_every_broker_is_given_up(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, SEARCH))
    for _ in range(MAX_TRIES - 1):
        talk.lose()
        assert talk.heard_by_agent() == []
        talk.now += 60
        assert [m["id"] for m in talk.connect()] == [1]
    talk.lose()
    assert talk.error["code"] == NOT_EXECUTED
    talk.now += 60
    assert not talk.protocol.wants_connection(talk.now)


def test_garbage_from_the_broker_breaks_the_connection(talk: Talk) -> None:
    talk.connect()
    talk.broker(b"\x00garbage", result(1))
    assert talk.protocol.connection.broken


@pytest.mark.parametrize("noise", [b"", b"Welcome to \xff host!", b"42", b'{"motd": "hi"}', b"[1, 2]", b"null", b"{"])
def test_what_a_shell_prints_before_hello_is_answered_is_passed_over(talk: Talk, noise: bytes) -> None:
    talk.open()
    talk.broker(noise)
    talk.welcome()
    assert talk.protocol.connection.established
    talk.agent(call(1))
    talk.broker(result(1))
    assert [m["id"] for m in talk.heard_by_agent()] == [1]


def test_a_flood_before_the_answer_to_hello_does_not_come_from_a_broker(talk: Talk) -> None:
    talk.open()
    for _ in range(MAX_NOISE // 64):
        talk.broker(b"x" * 63)
        assert not talk.protocol.connection.broken
    talk.broker(b"x")
    assert talk.protocol.connection.broken
    talk.lose()
    talk.open()
    talk.broker(b"x")
    talk.welcome()
    assert talk.protocol.connection.established, "each connection may have its noise"


# -- when to connect


def test_connects_at_the_start_and_then_only_for_work(talk: Talk) -> None:
    assert talk.protocol.wants_connection(talk.now)
    talk.connect()
    assert not talk.protocol.wants_connection(talk.now)
    talk.lose()
    assert not talk.protocol.wants_connection(talk.now)
    talk.agent(call(1))
    assert talk.protocol.wants_connection(talk.now)


def test_broker_that_dies_again_and_again_is_dialled_less_and_less_often(talk: Talk) -> None:
    talk.agent(call(1))
    pauses = []
    for _ in range(4):
        talk.open()
        talk.lose()
        pauses.append(max(0.0, talk.protocol.reconnect.retry_at - talk.now))
        assert talk.protocol.wants_connection(talk.now) == (pauses[-1] == 0)
        talk.protocol.tick(talk.now)
        if pauses[-1]:
            assert talk.protocol.next_deadline(talk.now) == talk.protocol.reconnect.retry_at
        talk.now += pauses[-1]
    assert pauses[0] == 0
    assert pauses[1:] == sorted(pauses[1:])
    assert len(set(pauses)) == 4


# -- no broker at all


def test_without_broker_calls_fail_at_once_and_initialize_does_not(talk: Talk) -> None:
    talk.agent(initialize(), call(1), {"id": 2, "method": "tools/list"})
    talk.protocol.failed(NOT_EXECUTED, "no broker: /x. Hint: do y.", talk.now)
    first, second, third = talk.heard_by_agent()
    assert first["result"]["serverInfo"]["name"] == "mempalace"
    assert first["result"]["protocolVersion"] == "2025-06-18"
    assert second["error"]["code"] == NOT_EXECUTED
    assert "no broker: /x. It is safe to send it again. Hint: do y." in second["error"]["message"]
    assert third["error"]["code"] == NOT_EXECUTED
    talk.agent(call(3))
    assert talk.error["code"] == NOT_EXECUTED
    assert len(talk.protocol.notices) == 1


def test_without_broker_the_cache_answers_what_it_can() -> None:
    talk = Talk(CACHE)
    talk.agent(initialize(), {"id": 2, "method": "tools/list"})
    talk.protocol.failed(NOT_EXECUTED, "no broker", talk.now)
    first, second = talk.heard_by_agent()
    assert first["result"]["serverInfo"]["version"] == "3.11.0"
    assert second["result"] == {"tools": [{"name": "mempalace_status"}]}
    assert [m["id"] for m in talk.connect()] == ["broker/initialize"]


def test_tries_again_for_the_next_call_after_a_pause(talk: Talk) -> None:
    talk.protocol.failed(NOT_EXECUTED, "no broker", talk.now)
    assert not talk.protocol.wants_connection(talk.now)
    talk.now += 1
    assert not talk.protocol.wants_connection(talk.now)
    talk.agent(call(1))
    assert talk.protocol.wants_connection(talk.now)
    assert talk.heard_by_agent() == []
    assert [m["id"] for m in talk.connect()] == [1]


def test_refused_hello_answers_with_its_reason_and_executes_nothing(talk: Talk) -> None:
    talk.agent(initialize(), call(1, ADD))
    talk.open()
    assert [m["method"] for m in talk.heard_by_broker()] == [HELLO, "initialize"]
    talk.broker(
        {"jsonrpc": "2.0", "id": HELLO, "error": {"code": OTHER_PALACE, "message": "another palace"}}, result(0)
    )
    first, second = talk.heard_by_agent()
    assert "result" in first
    assert (second["error"]["code"], second["id"]) == (OTHER_PALACE, 1)
    assert talk.protocol.connection.broken
    talk.lose()
    talk.agent(call(2))
    assert talk.error["code"] == OTHER_PALACE
    assert talk.protocol.notices == ["another palace"]


def test_write_of_open_fate_is_unknown_where_no_broker_comes_back(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, ADD))
    talk.lose()
    talk.protocol.failed(NOT_EXECUTED, "cannot start", talk.now)
    assert talk.heard_by_agent() == []
    talk.later(ASK_GRACE_S)
    error = talk.error
    assert error["code"] == OUTCOME_UNKNOWN
    assert "cannot start" in error["message"]


# -- a silent broker


def test_constant_answers_come_from_the_cache_after_two_seconds() -> None:
    talk = Talk(CACHE)
    talk.agent(initialize(), {"id": 2, "method": "tools/list"})
    talk.open()
    talk.later(1.9)
    assert talk.heard_by_agent() == []
    assert talk.protocol.next_deadline(talk.now) == pytest.approx(talk.now + 0.1)
    talk.later(0.2)
    assert [m["id"] for m in talk.heard_by_agent()] == [0, 2]
    talk.broker(result(0), result(2))
    assert talk.heard_by_agent() == []


def test_without_cache_tools_list_waits_on_and_initialize_does_not(talk: Talk) -> None:
    talk.agent(initialize(), {"id": 2, "method": "tools/list"})
    talk.open()
    talk.later(2)
    assert [m["id"] for m in talk.heard_by_agent()] == [0]
    talk.broker(result(2, {"tools": []}))
    assert talk.heard_by_agent() == [result(2, {"tools": []})]


@pytest.mark.parametrize(
    "cache", [b"", b"{", b"[]", b'{"schema":2,"tools":[]}', b'{"schema":1,"tools":7,"initialize":3}']
)
def test_damaged_cache_counts_as_missing(cache: bytes) -> None:
    talk = Talk(cache)
    talk.agent(initialize(), {"id": 2, "method": "tools/list"})
    talk.later(2)
    (only,) = talk.heard_by_agent()
    assert only["result"]["capabilities"] == {"tools": {}}


@pytest.mark.parametrize(
    ("tool", "code"), [(SEARCH, NOT_EXECUTED), (ADD, OUTCOME_UNKNOWN), ("mempalace_new", OUTCOME_UNKNOWN)]
)
def test_call_without_answer_ends_by_its_deadline_and_its_late_answer_is_dropped(
    talk: Talk, tool: str, code: int
) -> None:
    talk.connect()
    talk.agent(call(1, tool))
    talk.later(60 + 60 + 4)
    assert talk.heard_by_agent() == []
    talk.later(1)
    assert talk.error["code"] == code
    assert talk.heard_by_broker()[-1] == cancelled(1)
    talk.agent(call(1, SEARCH))
    (again,) = talk.heard_by_broker()
    assert again["id"] != 1, "the late answer of the first must not be taken for the second's"
    talk.broker(result(1, {"late": True}), result(again["id"], {"right": True}))
    assert talk.heard_by_agent() == [result(1, {"right": True})]


def test_limits_come_from_hello(talk: Talk) -> None:
    talk.open()
    talk.welcome(limits={"wait_s": 1, "run_s": 2, "init_s": 100})
    talk.agent(call(1), call(2))
    talk.broker(result(1))
    talk.later(7.9)
    assert len(talk.heard_by_agent()) == 1
    talk.later(0.1)
    assert talk.error["code"] == NOT_EXECUTED


@pytest.mark.parametrize(("tool", "arguments", "seconds"), [
    ("mempalace_mine", {}, NO_DEADLINE), ("mempalace_event_wait", {"timeout_ms": 250_000}, 60 + 255 + 5),
    (SEARCH, {}, 125),
])  # fmt: skip
def test_tools_with_limits_of_their_own(talk: Talk, tool: str, arguments: dict[str, Any], seconds: float) -> None:
    talk.connect()
    talk.agent(call(0))
    talk.broker(result(0))
    talk.heard_by_agent()
    talk.agent(call(1, tool, **arguments))
    if seconds == NO_DEADLINE:
        talk.later(1e6)
        assert talk.heard_by_agent() == []
        return
    talk.later(seconds - 0.1)
    assert talk.heard_by_agent() == []
    talk.later(0.1)
    assert len(talk.heard_by_agent()) == 1


def test_zero_turns_the_limit_off(talk: Talk) -> None:
    talk.open()
    talk.welcome(limits={"wait_s": 0, "run_s": 60, "init_s": 120})
    talk.agent(call(1))
    talk.later(1e6)
    assert talk.heard_by_agent() == []
    assert talk.protocol.next_deadline(talk.now) == NO_DEADLINE


# -- cancellation


def test_cancel_is_passed_on_and_only_a_real_answer_follows(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1), cancelled(1))
    assert talk.heard_by_broker() == [call(1), cancelled(1)]
    talk.later(1e5)
    assert talk.heard_by_agent() == []
    talk.broker(result(1))
    assert talk.heard_by_agent() == []


@pytest.mark.parametrize("request_", [call(1), call(1, ADD), {**initialize(), "id": 1, "method": "tools/list"}])
def test_late_answer_to_what_was_cancelled_is_dropped(talk: Talk, request_: dict[str, Any]) -> None:
    talk.connect()
    talk.agent(request_, cancelled(1), call(2))
    talk.broker(result(1), result(2))
    assert talk.heard_by_agent() == [result(2)]
    talk.protocol.agent_eof(talk.now)
    assert talk.protocol.finished(talk.now)


def test_initialize_is_answered_even_if_it_was_cancelled(talk: Talk) -> None:
    talk.connect()
    talk.agent(initialize(), cancelled(0))
    assert talk.heard_by_broker() == [initialize()]
    talk.broker(result(0))
    assert talk.heard_by_agent() == [result(0)]


def test_the_id_of_a_cancelled_request_may_be_used_again(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, q="a"), cancelled(1), call(1, q="b"))
    second = talk.heard_by_broker()[-1]
    talk.broker(result(1, "late"), result(second["id"], "b"))
    assert talk.heard_by_agent() == [result(1, "b")]


def test_call_withdrawn_before_it_was_sent_never_is(talk: Talk) -> None:
    talk.agent(call(1, ADD), cancelled(1))
    assert talk.connect() == []
    talk.later(1e5)
    assert talk.heard_by_agent() == []


@pytest.mark.parametrize("id_", [1, "1", None, 77, [1]])
def test_cancel_of_answered_or_unknown_ids_does_nothing(talk: Talk, id_: Any) -> None:
    talk.connect()
    talk.agent(call(1))
    talk.broker(result(1))
    talk.agent(cancelled(id_), call(1))
    assert talk.heard_by_broker() == [call(1), call(1)]
    talk.broker(result(1))
    assert talk.heard_by_agent() == [result(1), result(1)]


def test_cancelled_write_on_a_lost_connection_is_forgotten(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, ADD), cancelled(1))
    talk.lose()
    talk.agent(call(2))
    assert [m["id"] for m in talk.connect()] == [2]


def test_cancelling_a_write_of_open_fate_lets_the_others_go_on(talk: Talk) -> None:
    lost_write(talk)
    talk.agent(call(6), cancelled(5))
    talk.outcomes({})
    assert talk.heard_by_agent() == []
    assert [m["id"] for m in talk.heard_by_broker()] == [6]


def test_cancel_finds_a_call_that_travels_under_another_id(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, q="a"), call(1, q="b"))
    first, second = talk.heard_by_broker()
    talk.agent(cancelled(1), cancelled(1))
    assert [m["params"]["requestId"] for m in talk.heard_by_broker()] == [first["id"], second["id"]]


# -- the end, and too much


def test_end_of_input_waits_for_what_is_under_way(talk: Talk) -> None:
    talk.agent(call(1))
    talk.protocol.agent_eof(talk.now)
    assert not talk.protocol.finished(talk.now)
    assert talk.protocol.wants_connection(talk.now)
    talk.connect()
    talk.broker(result(1))
    assert not talk.protocol.finished(talk.now), "it has not been written yet"
    assert talk.heard_by_agent() == [result(1)]
    assert talk.protocol.finished(talk.now)


def test_end_of_input_with_nothing_owed_is_the_end(talk: Talk) -> None:
    talk.agent(call(1), cancelled(1))
    talk.protocol.agent_eof(talk.now)
    assert talk.protocol.finished(talk.now)


@pytest.mark.parametrize(("line", "heard"), [(b'{"id":1,"method":"tools/list"}', True), (b'{"id":1,"meth', False)])
def test_last_line_counts_without_its_newline_unless_it_was_cut(talk: Talk, line: bytes, heard: bool) -> None:
    talk.connect()
    talk.protocol.agent_data(line, talk.now)
    assert talk.heard_by_broker() == []
    talk.protocol.agent_eof(talk.now)
    assert [m["id"] for m in talk.heard_by_broker()] == ([1] if heard else [])
    talk.broker(result(1))
    assert [m.get("error", {}).get("code") for m in talk.heard_by_agent()] == [None if heard else PARSE_ERROR]
    assert talk.protocol.finished(talk.now)


def test_end_of_input_waits_so_long_and_no_longer(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, ADD), call(2, "mempalace_mine"), call(3))
    talk.protocol.agent_eof(talk.now)
    talk.later(0)
    assert talk.protocol.next_deadline(talk.now) == talk.now + EOF_GRACE_S
    talk.later(EOF_GRACE_S)
    assert not talk.protocol.finished(talk.now), "the answers have not been read"
    talk.later(FLUSH_S)
    assert talk.protocol.finished(talk.now), "nobody reads them"
    assert [m["error"]["code"] for m in talk.heard_by_agent()] == [OUTCOME_UNKNOWN, OUTCOME_UNKNOWN, NOT_EXECUTED]


def test_reads_no_more_than_it_can_hold(talk: Talk) -> None:
    wants = [talk.protocol.wants_agent]
    talk.agent(call(1, ADD, content="x" * MAX_HELD))
    wants.append(talk.protocol.wants_agent)
    talk.connect()
    wants.append(talk.protocol.wants_agent)
    talk.broker(result(1))
    talk.heard_by_agent()
    assert [*wants, talk.protocol.wants_agent] == [True, False, False, True]


def test_reads_no_broker_whose_answers_nobody_takes(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1))
    talk.broker(result(1, "x" * MAX_QUEUED))
    wants = [talk.protocol.wants_broker, talk.protocol.wants_agent]
    talk.heard_by_agent()
    assert [*wants, talk.protocol.wants_broker, talk.protocol.wants_agent] == [False, False, True, True]


def test_a_queue_is_full_at_its_limit(talk: Talk) -> None:
    talk.connect()
    to_agent, to_broker = talk.protocol.to_agent, talk.protocol.connection.to_broker
    to_agent.put(b"x" * (MAX_QUEUED - 1))
    to_broker.put(b"x" * (MAX_QUEUED - 1))
    assert (talk.protocol.wants_agent, talk.protocol.wants_broker) == (True, True)
    to_broker.put(b"x")
    assert (talk.protocol.wants_agent, talk.protocol.wants_broker) == (False, True)
    drain(to_broker)
    to_agent.put(b"x")
    assert (talk.protocol.wants_agent, talk.protocol.wants_broker) == (False, False)


def test_many_calls_and_many_cancelled_ones_neither_pile_up_nor_block(talk: Talk) -> None:
    talk.connect()
    for n in range(MAX_UNANSWERED):
        assert talk.protocol.wants_agent
        talk.agent(call(n), cancelled(n))
        talk.heard_by_broker()
    assert talk.protocol.wants_agent
    for n in range(MAX_UNANSWERED):
        talk.agent(call(n + 50_000))
        talk.heard_by_broker()
    assert not talk.protocol.wants_agent


def test_a_welcome_ends_the_failures_before_it(talk: Talk) -> None:
    talk.protocol.failed(NOT_EXECUTED, "no broker", talk.now)
    assert talk.protocol.reconnect.hopeless(talk.now)
    talk.connect()
    assert not talk.protocol.reconnect.hopeless(talk.now)
    assert talk.protocol.notices == ["no broker", "connected to the broker"]


def test_notice_of_the_broker_goes_to_stderr(talk: Talk) -> None:
    talk.open()
    talk.welcome(notice="another graph")
    assert talk.protocol.notices == ["another graph"]


@pytest.mark.parametrize("method", ["broker/stop", "broker/hello", "broker/status", "broker/outcomes"])
def test_an_agent_does_not_reach_the_broker_s_own_methods(talk: Talk, method: str) -> None:
    talk.connect()
    talk.agent({"jsonrpc": "2.0", "id": 5, "method": method})
    assert talk.error["code"] == METHOD_NOT_FOUND
    assert talk.heard_by_broker() == []


def test_a_long_read_that_lost_its_connection_waits_anew(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1, "mempalace_event_wait", timeout_ms=300_000))
    talk.later(100)
    talk.lose()
    talk.later(5)
    assert talk.heard_by_agent() == []
    heard = talk.connect()
    assert any(line.get("method") == "tools/call" for line in [*heard, *talk.heard_by_broker()])


def test_a_read_only_session_says_so_in_hello_and_is_shown_no_writer_from_the_cache() -> None:
    tools = [{"name": ADD}, {"name": SEARCH}, {"name": "strange"}]
    answers = ConstantAnswers("3.11.0")
    answers.tools = tools
    talk = Talk(answers.encode(), read_only=True)
    talk.open()
    assert talk.heard_by_broker()[0]["params"]["read_only"] is True
    talk.lose()
    talk.agent({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    talk.later(CACHE_AFTER_S)
    (listed,) = talk.heard_by_agent()
    assert listed["result"]["tools"] == [{"name": SEARCH}]


def test_a_fault_of_the_program_ends_every_request_once_and_the_next_one_starts_afresh(talk: Talk) -> None:
    talk.connect()
    talk.agent(call(1), call(2, ADD), call(3), cancelled(3))
    talk.lose()
    talk.agent(call(4))
    talk.protocol.fault(ModuleNotFoundError("No module named 'x'"), talk.now)
    told = {m["id"]: m["error"] for m in talk.heard_by_agent()}
    assert {id_: error["code"] for id_, error in told.items()} == {1: NOT_EXECUTED, 2: OUTCOME_UNKNOWN, 4: NOT_EXECUTED}
    assert all("install it again" in error["message"] for error in told.values())
    assert not talk.protocol.wants_connection(talk.now)
    talk.agent(call(5))
    assert talk.error["code"] == NOT_EXECUTED, "too early to try again"
    talk.later(talk.protocol.reconnect.retry_at - talk.now)
    talk.agent(call(6))
    assert talk.protocol.wants_connection(talk.now)
    assert [m["id"] for m in talk.connect()] == [6]


def test_a_message_that_breaks_something_is_answered_and_so_are_those_behind_it(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk.connect()
    monkeypatch.setattr("mempalace_broker.shim.machine.protocol.rule_for", lambda name: 1 / 0)
    lines = b"".join(json.dumps(message).encode() + b"\n" for message in (call(1), call(2)))
    with pytest.raises(ZeroDivisionError):
        talk.protocol.agent_data(lines, talk.now)
    assert [(m["id"], m["error"]["code"]) for m in talk.heard_by_agent()] == [(1, NOT_EXECUTED), (2, NOT_EXECUTED)]
