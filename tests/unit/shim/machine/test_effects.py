"""What ShimProtocol asks of its caller, and what it does while the answer is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker.errors import NOT_EXECUTED
from mempalace_broker.protocol.hello import HELLO
from mempalace_broker.shim.machine.effects import ReadAnswers, TranslatePaths, VerifyPalace
from tests.unit.shim.machine.dialogue import LIMITS, SEARCH, Talk, call, cancelled, drain, initialize, parsed, result

MINE = "mempalace_mine"
ELSEWHERE = {"map": {"/work/dir/a": "/Users/me/a"}}


@pytest.fixture
def talk() -> Talk:
    return Talk()


def send(talk: Talk, *messages: Any) -> None:
    """Bytes of the broker in one piece, without carrying out effects."""
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    talk.protocol.broker_data(data, talk.now)


def test_what_follows_a_welcome_waits_until_the_palace_is_verified(talk: Talk) -> None:
    talk.agent(initialize())
    talk.open()
    send(talk, result(HELLO, {"limits": LIMITS}), result(0, {"x": 1}))
    (effect,) = talk.protocol.effects
    assert isinstance(effect, VerifyPalace)
    assert parsed(drain(talk.protocol.to_agent)) == []
    before = talk.protocol.connection.established
    talk.perform()
    assert (before, talk.protocol.connection.established) == (False, True)
    assert talk.heard_by_agent() == [result(0, {"x": 1})]


def test_a_verdict_on_a_connection_that_is_lost_counts_for_nothing(talk: Talk) -> None:
    talk.open()
    send(talk, result(HELLO, {"limits": LIMITS}))
    talk.lose()
    talk.perform()
    assert not talk.protocol.connection.established
    talk.agent(call(1))
    talk.now += 1
    assert [m["id"] for m in talk.connect()] == [1]


def asked_for_names(talk: Talk, *more: Any) -> TranslatePaths:
    talk.connect(files=ELSEWHERE)
    for message in (call(1, MINE, source="a"), *more):
        talk.protocol.agent_data(json.dumps(message).encode() + b"\n", talk.now)
    (effect,) = talk.protocol.effects
    assert isinstance(effect, TranslatePaths)
    assert effect.paths == ["/work/dir/a"]
    return effect


def test_later_calls_stay_behind_one_whose_paths_are_being_translated(talk: Talk) -> None:
    asked_for_names(talk, call(2, SEARCH))
    assert parsed(drain(talk.protocol.connection.to_broker)) == []
    assert [m["id"] for m in talk.heard_by_broker()] == [1, 2]


def test_cancelling_it_lets_the_later_ones_go(talk: Talk) -> None:
    asked_for_names(talk, call(2, SEARCH), cancelled(1))
    assert [m["id"] for m in talk.heard_by_broker()] == [2]
    assert talk.heard_by_agent() == []


def test_names_for_a_connection_that_is_lost_are_not_used(talk: Talk) -> None:
    effect = asked_for_names(talk)
    talk.lose()
    talk.protocol.paths_translated(effect.key, {"/work/dir/a": "/Users/me/a"}, talk.now)
    talk.protocol.effects.clear()
    (sent,) = talk.connect()
    assert sent["params"]["arguments"] == {"source": "/work/dir/a"}


def test_the_cache_is_read_once_for_all_that_wait_for_it(talk: Talk) -> None:
    lines = b"".join(json.dumps({"id": n, "method": "tools/list"}).encode() + b"\n" for n in range(3))
    talk.protocol.failed(NOT_EXECUTED, "no broker", talk.now)
    talk.protocol.agent_data(lines, talk.now)
    (effect,) = talk.protocol.effects
    assert isinstance(effect, ReadAnswers)
    assert [m["error"]["code"] for m in talk.heard_by_agent()] == [NOT_EXECUTED] * 3
