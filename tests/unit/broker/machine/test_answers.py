from __future__ import annotations

import json

import pytest

from mempalace_broker.broker.machine.answers import Answers
from mempalace_broker.protocol.jsonrpc import PROTOCOLS


@pytest.mark.parametrize(
    ("params", "protocol"),
    [
        ({"protocolVersion": "2025-03-26"}, "2025-03-26"),
        ({"protocolVersion": "2099-01-01"}, PROTOCOLS[0]),
        ({"protocolVersion": 7}, PROTOCOLS[0]),
        ({}, PROTOCOLS[-1]),
        (None, PROTOCOLS[-1]),
        ("x", PROTOCOLS[-1]),
    ],
)
def test_initialize_takes_the_protocol_asked_for_or_the_newest(params: object, protocol: str) -> None:
    assert Answers("3.4.0").initialize(params) == {
        "protocolVersion": protocol,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "mempalace", "version": "3.4.0"},
    }


def test_what_the_engine_says_of_itself_is_told_from_then_on() -> None:
    answers = Answers()
    hello = {
        "version": "9.0",
        "initialize": {
            "versions": ["2030-01-01"],
            "result": {"protocolVersion": "2025-11-25", "serverInfo": {"name": "m", "version": "9.0"}},
        },
        "tools": [{"name": "a"}],
    }
    assert answers.learn(hello)
    assert answers.fresh
    told = answers.initialize({"protocolVersion": "2030-01-01"})
    assert told == {"protocolVersion": "2030-01-01", "serverInfo": {"name": "m", "version": "9.0"}}
    assert not answers.learn(hello), "nothing new"
    assert answers.learn({**hello, "version": "9.1"})


def test_the_cache_is_for_its_version_alone() -> None:
    first = Answers()
    first.learn({"version": "3.11.0", "tools": [{"name": "a"}]})
    other = Answers("3.4.0")
    other.load(first.encode(), "3.4.0")
    assert other.tools is None
    same = Answers("3.11.0")
    same.load(first.encode(), "3.11.0")
    assert same.tools == first.tools
    assert not same.fresh


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"7", b'{"schema":1}', b'{"schema":2}', b"\xff"])
def test_a_damaged_cache_counts_as_missing(damage: bytes | None) -> None:
    answers = Answers("3.11.0")
    answers.load(damage, "3.11.0")
    assert answers.tools is None
    assert answers.protocols == PROTOCOLS


@pytest.mark.parametrize("hello", [{}, {"initialize": 7, "tools": 7}, {"initialize": {"result": {}, "versions": []}}])
def test_an_engine_that_says_little_changes_little(hello: dict[str, object]) -> None:
    answers = Answers("3.11.0")
    answers.learn(hello)
    assert answers.protocols == PROTOCOLS
    assert "serverInfo" in answers.initialize({})


def test_the_cache_is_json_for_the_shim() -> None:
    answers = Answers("3.11.0")
    answers.learn({"version": "3.11.0", "tools": []})
    assert json.loads(answers.encode())["tools"] == []
