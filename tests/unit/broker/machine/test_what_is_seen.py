"""What the protocol tells those who watch: how calls ended, and which sessions there were."""

from __future__ import annotations

from typing import Any

from mempalace_broker import errors
from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.scheduler import Limits
from tests.unit.broker.machine.dialogue import KG_QUERY, SEARCH, Talk, call, cancel, request


def talk_of(*calls: dict[str, Any], limits: Limits | None = None) -> Talk:
    talk = Talk(limits=limits)
    talk.opens(1)
    talk.says(1, *calls)
    return talk


def tools(talk: Talk) -> dict[str, dict[str, int]]:
    counted: dict[str, dict[str, int]] = talk.dispatcher.traffic.as_json(talk.now, 0.0)["tools"]
    return counted


def failures(talk: Talk) -> list[tuple[str, int, bool]]:
    """Tool, code, and whether there are words of ours."""
    return [(one.call.tool, one.code, bool(one.text)) for one in talk.seen if isinstance(one, fx.CallFailed)]


def test_an_answer_and_an_error_of_the_engine() -> None:
    talk = talk_of(call(1, KG_QUERY), call(2, KG_QUERY))
    talk.done(talk.frame(1))
    talk.done(talk.frame(2), b'{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"secret"}}', code=-32602)
    assert tools(talk) == {KG_QUERY: {"calls": 2, "errors": 1}}
    assert failures(talk) == [(KG_QUERY, -32602, False)]
    assert talk.dispatcher.counters["errors"] == 1


def test_an_error_of_ours_is_told_and_counted_by_whoever_is_told() -> None:
    talk = talk_of(call(1, SEARCH), limits=Limits(run_s=5.0))
    talk.wait(5.0)
    assert failures(talk) == [(SEARCH, errors.RUN_TIMEOUT, True)]
    assert talk.dispatcher.counters["errors"] == 1
    assert tools(talk) == {}


def test_what_nobody_waits_for_any_more_is_not_counted() -> None:
    talk = talk_of(call(1, KG_QUERY))
    talk.says(1, cancel(1))
    talk.done(talk.frame(1), code=-32602)
    assert tools(talk) == {}
    assert failures(talk) == []
    assert talk.dispatcher.counters["errors"] == 0


def lines(talk: Talk) -> list[tuple[str, str]]:
    """What the log says of sessions: the text and the session's agent."""
    return [(one.text, one.session.agent) for one in talk.seen if isinstance(one, fx.Log) and one.session is not None]


def test_the_log_has_the_beginning_and_the_end_of_a_session() -> None:
    talk = Talk()
    talk.greets(1)
    hello = request(1, "initialize", clientInfo={"name": "codex\n"})
    talk.says(1, hello, {**hello, "id": 2})
    public = talk.protocol.sessions[1].public
    talk.now += 7
    talk.protocol.closed(1, talk.now)
    talk.turn()
    began, ended = lines(talk)
    assert began == (f"session {public} began: codex\\n by test, pid 7, host", "codex\\n")
    assert ended == (f"session {public} ended after 7 s and 3 answers", "codex\\n")


def test_it_says_nothing_of_clients_without_a_name_nor_of_single_requests() -> None:
    talk = Talk()
    talk.opens(1)
    talk.protocol.opened(2, talk.now, agent="http")
    for conn in (1, 2):
        talk.says(conn, request(1, "ping"))
        talk.protocol.closed(conn, talk.now)
    talk.turn()
    assert lines(talk) == []
