"""JSON in and out of the engine: never invalid, never a dead engine, and as mempalace-mcp prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.engine.payload import (
    BadRequest,
    decode_request,
    encode_response,
    error_response,
    opening_error,
    request_id,
    response_code,
    tool_call,
)

NAN = float("nan")


def strictly(data: bytes) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(data.decode("utf-8"), parse_constant=refuse)


ids = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
values = st.recursive(
    ids, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@given(id_=ids, result=values)
def test_whatever_the_answer_holds_it_is_one_line_of_valid_json(id_: Any, result: Any) -> None:
    data = encode_response({"jsonrpc": "2.0", "id": id_, "result": result})
    assert b"\n" not in data
    strictly(data)


@given(st.text(st.characters()))
def test_an_id_comes_back_as_it_was_even_with_lone_surrogates(id_: str) -> None:
    assert strictly(encode_response({"jsonrpc": "2.0", "id": id_, "result": {}}))["id"] == id_


def test_text_is_printed_as_mempalace_mcp_prints_it() -> None:
    response = {"jsonrpc": "2.0", "id": 1, "result": {"text": "naïve 東京"}}
    assert encode_response(response) == json.dumps(response, ensure_ascii=False).encode()


def test_a_lone_surrogate_in_the_body_becomes_a_question_mark() -> None:
    assert strictly(encode_response({"id": "\ud800", "result": "a\udfffb"})) == {"id": "\ud800", "result": "a?b"}


@pytest.mark.parametrize("id_", [NAN, float("inf"), float("-inf")])
def test_an_id_that_is_no_json_number_comes_back_as_null(id_: float) -> None:
    assert strictly(encode_response({"id": id_, "result": {"x": "\ud800"}})) == {"id": None, "result": {"x": "?"}}


def test_no_response_becomes_no_bytes() -> None:
    assert encode_response(None) == b""


@pytest.mark.parametrize("line", [b"", b"{", b'{"a": }', b"[" * 100_000, b'{"id": ' + b"9" * 5000 + b"}", b"\xff\xfe"])
def test_what_can_not_be_parsed_has_an_answer(line: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_request(line)
    assert response_code(caught.value.response) == -32700
    strictly(encode_response(caught.value.response))


def test_invalid_utf8_inside_a_string_is_replaced_as_on_stdin() -> None:
    assert decode_request(b'{"q": "a\xffb"}') == {"q": "a\ufffdb"}


@pytest.mark.parametrize("request_", [None, 1, [], "x", {"method": 5}, {"method": "tools/call", "params": []}])
def test_odd_requests_are_not_tool_calls(request_: Any) -> None:
    assert tool_call(request_) == (None, {})


def test_tool_call_takes_name_and_arguments() -> None:
    request = {"id": 7, "method": "tools/call", "params": {"name": "t", "arguments": {"a": 1}}}
    assert tool_call(request) == ("t", {"a": 1})
    assert request_id(request) == 7


def test_response_code() -> None:
    assert response_code(error_response(1, -32005, "stale")) == -32005
    assert response_code({"result": {}}) == 0
    assert response_code(None) == 0
    assert response_code({"error": {"code": "x"}}) == -32603


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"error": "Backend open failed", "details": "disk I/O error", "hint": "repair"}, "disk I/O error"),
        ({"error": "Backend open failed"}, "Backend open failed"),
        ("it is locked", "it is locked"),
        (None, "it does not open"),
    ],
)
def test_why_a_collection_did_not_open_is_said_in_words(told: object, words: str) -> None:
    assert opening_error(told) == words
