"""Answers as the newest version of the protocol has them."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.broker.http.machine import modern
from mempalace_broker.protocol.constant_answers import ConstantAnswers
from mempalace_broker.protocol.jsonrpc import TOOLS_CALL, TOOLS_LIST, error_line, result_line

TEXTS = st.text() | st.sampled_from(['"result": {', '"result":{}', "\\"])


@settings(max_examples=50)
@given(TEXTS | st.integers(), st.dictionaries(TEXTS, TEXTS), st.booleans())
def test_only_the_missing_word_is_added(id_: object, result: dict[str, object], spaced: bool) -> None:
    line = result_line(id_, result).rstrip()
    if spaced:  # as the engine writes
        line = json.dumps(json.loads(line)).encode()
    body = json.loads(modern.completed(line, TOOLS_CALL))
    assert body == {"jsonrpc": "2.0", "id": id_, "result": {"resultType": "complete", **result}}


def test_a_list_of_tools_says_that_it_is_not_to_be_kept() -> None:
    result = json.loads(modern.completed(result_line(1, {"tools": []}), TOOLS_LIST))["result"]
    assert result == {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": []}


def test_an_error_stays_as_it_is() -> None:
    line = error_line('"result": {', -32601, 'no "result": {')
    assert modern.completed(line, TOOLS_CALL) == line


def test_what_a_client_learns_instead_of_a_handshake() -> None:
    answers = ConstantAnswers("3.11.0")
    answers.template["instructions"] = "remember"
    result = json.loads(modern.discovered("d", answers))["result"]
    assert result["supportedVersions"][:2] == ["2026-07-28", "2025-11-25"]
    assert result["capabilities"] == {"tools": {}}
    assert result["instructions"] == "remember"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == {"name": "mempalace", "version": "3.11.0"}
