"""The engine's constant answers, and their cache file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.constant_answers import ConstantAnswers
from mempalace_broker.protocol.jsonrpc import INITIALIZE, PROTOCOLS, TOOLS_LIST


@pytest.mark.parametrize(
    ("params", "protocol"),
    [
        ({"protocolVersion": PROTOCOLS[1]}, PROTOCOLS[1]),
        ({"protocolVersion": "2099-01-01"}, PROTOCOLS[0]),
        ({}, PROTOCOLS[-1]),
        (None, PROTOCOLS[-1]),
    ],
)
def test_initialize_takes_the_protocol_asked_for_or_the_newest(params: object, protocol: str) -> None:
    assert ConstantAnswers("3.4.0").result(INITIALIZE, params) == {
        "protocolVersion": protocol,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "mempalace", "version": "3.4.0"},
    }


def test_an_engine_of_unknown_version_says_so() -> None:
    assert ConstantAnswers().initialize({})["serverInfo"] == {"name": "mempalace", "version": "unknown"}


def test_tools_are_listed_once_an_engine_listed_them() -> None:
    answers = ConstantAnswers("3.4.0")
    assert answers.result(TOOLS_LIST, {}) is None
    answers.tools = []
    assert answers.result(TOOLS_LIST, {}) == {"tools": []}


def test_the_cache_file_keeps_everything() -> None:
    answers = ConstantAnswers("3.11.0")
    answers.protocols = ("2030-01-01", "2025-06-18")
    answers.template = {"serverInfo": {"name": "é"}}
    answers.tools = [{"name": "a"}]
    read = ConstantAnswers.decode(answers.encode())
    assert vars(read) == vars(answers)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
caches = st.fixed_dictionaries(
    {"schema": st.just(1), "initialize": st.dictionaries(st.text(max_size=5), json_values)},
    optional={"version": json_values, "protocols": json_values, "tools": json_values},
)


@given(st.binary() | caches.map(json.dumps).map(str.encode), json_values)
def test_whatever_the_cache_file_holds_answers_are_json(content: bytes, params: object) -> None:
    answers = ConstantAnswers.decode(content)
    for method in (INITIALIZE, TOOLS_LIST, "ping", "other"):
        said = answers.result(method, params)
        assert said is None or isinstance(json.loads(json.dumps(said)), dict)


EMPTY = {"schema": 1, "initialize": {"serverInfo": {}}}


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"\xff", b"[]", b"7", b'{"schema": 1}', b'{"schema": 2, "initialize": {"x": 1}, "tools": []}'],
)
def test_a_cache_file_that_is_missing_or_damaged_or_of_another_schema_counts_as_empty(content: bytes | None) -> None:
    assert vars(ConstantAnswers.decode(content)) == vars(ConstantAnswers())


@pytest.mark.parametrize("protocols", [None, 7, "2025-06-18", []])
def test_a_cache_file_without_protocols_leaves_those_that_mcp_has(protocols: object) -> None:
    read = ConstantAnswers.decode(json.dumps({**EMPTY, "protocols": protocols, "tools": 7}).encode())
    assert (read.protocols, read.tools, read.template) == (PROTOCOLS, None, {"serverInfo": {}})
