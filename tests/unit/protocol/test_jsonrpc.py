from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR
from mempalace_broker.protocol import jsonrpc as rpc

LEGAL_IDS = [0, 1, -1, 10**30, "", "7", "é", 'a,b"}', 1.5, "broker/hello"]
legal_ids = st.one_of(st.integers(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request(**parts: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "m", **parts}).encode()


@pytest.mark.parametrize("id_", LEGAL_IDS)
def test_request_keeps_value_and_type_of_its_id(id_: Any) -> None:
    message = rpc.parse(request(id=id_))
    assert message.kind == rpc.REQUEST
    assert message.id == id_
    assert type(message.id) is type(id_)
    assert message.key == rpc.key_of(id_)


def test_keys_of_different_types_differ() -> None:
    assert len({rpc.key_of(i) for i in (7, 7.0, "7", "7.0", '"7')}) == 5


@settings(deadline=None)
@given(legal_ids, legal_ids)
def test_keys_are_equal_only_for_equal_ids_of_one_type(one: Any, other: Any) -> None:
    same = type(one) is type(other) and json.dumps(one) == json.dumps(other)
    assert (rpc.key_of(one) == rpc.key_of(other)) == same


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("x" * rpc.MAX_ID, True), ("x" * (rpc.MAX_ID + 1), False), (10**rpc.MAX_ID - 1, True), (10**rpc.MAX_ID, False),
        (1 - 10**rpc.MAX_ID, True), (-(10**rpc.MAX_ID), False), (True, False), (None, False), (math.nan, False),
        (math.inf, False), (-0.5, True), ([], False),
    ],
)  # fmt: skip
def test_ids_are_strings_or_finite_numbers_of_bounded_length(value: object, fits: bool) -> None:
    assert rpc.is_id(value) is fits


@pytest.mark.parametrize(
    ("value", "found"), [(1, 1), (5, 5), (0, None), (6, None), (True, None), (2.0, None), ("2", None), (None, None)]
)
def test_whole_numbers_of_a_range(value: object, found: int | None) -> None:
    assert rpc.whole_number(value, 1, 5) == found


def test_a_message_in_a_log_shows_no_body() -> None:
    assert repr(rpc.parse(request(id=5, params={"q": "secret"}))) == "Message(request m 5 )"
    assert repr(rpc.parse(b"3")).endswith(f" {INVALID_REQUEST})")


def test_notification_response_batch_blank() -> None:
    assert rpc.parse(b'{"method":"notifications/x"}').kind == rpc.NOTIFICATION
    response = rpc.parse(b'{"id":"7","result":{}}')
    assert (response.kind, response.key) == (rpc.RESPONSE, '"7')
    assert rpc.parse(b'{"id":null,"error":{"code":1,"message":"x"}}').kind == rpc.RESPONSE
    batch = rpc.parse(b'[{"id":1,"method":"ping"},3]')
    assert batch.kind == rpc.BATCH
    assert [rpc.classify(item).kind for item in batch.body] == [rpc.REQUEST, rpc.BAD]
    assert rpc.parse(b" \r").kind == rpc.BLANK


@pytest.mark.parametrize(
    "line",
    [
        b"hello", b'{"id":1', b'{"id":1,"method":"m"} x', b'\xef\xbb\xbf{"id":1,"method":"m"}', b"\x00", b"{\x00}",
        b"tru", '{"id":1,"method":"m"}'.encode("utf-16"), b'{"id":1,"method":"a\nb"}', b"{'id':1}",
        b'{"id":01}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_unparsable_is_a_parse_error_without_id(line: bytes) -> None:
    message = rpc.parse(line)
    assert (message.kind, message.code, message.id) == (rpc.BAD, PARSE_ERROR, None)
    assert message.text.startswith("Parse error: ")


@pytest.mark.parametrize("line", [
    b"3", b'"x"', b"null", b"[]", b"true", b'{"id":null,"method":"m"}', b'{"id":[1],"method":"m"}',
    b'{"id":true,"method":"m"}', b'{"id":NaN,"method":"m"}', b'{"id":-Infinity,"method":"m"}',
    b'{"id":1e999,"method":"m"}',
])  # fmt: skip
def test_invalid_request_without_usable_id(line: bytes) -> None:
    message = rpc.parse(line)
    assert (message.kind, message.code, message.id) == (rpc.BAD, INVALID_REQUEST, None)


@pytest.mark.parametrize(("parts", "code"), [
    ({"method": ["m"]}, INVALID_REQUEST), ({"method": None}, INVALID_REQUEST), ({"params": 3}, INVALID_PARAMS),
    ({"params": []}, INVALID_PARAMS),
])  # fmt: skip
def test_bad_member_is_answered_under_its_id(parts: dict[str, Any], code: int) -> None:
    message = rpc.parse(request(id=5, **parts))
    assert (message.kind, message.code, message.id) == (rpc.BAD, code, 5)


@pytest.mark.parametrize("params", [None, {}, {"a": 1}])
def test_params_may_be_missing_null_or_an_object(params: Any) -> None:
    message = rpc.parse(request(id=1, params=params))
    assert message.kind == rpc.REQUEST
    assert message.params == (params or {})


def test_deep_nesting_is_refused_under_its_id() -> None:
    deep = b'{"x":{"id":1},"y":"\\"id\\":2","id" : "q","method":"m","params":' + b"[" * 200_000
    message = rpc.parse(deep)
    assert (message.kind, message.code, message.id) == (rpc.BAD, INVALID_REQUEST, "q")


def test_deep_nesting_without_reachable_id() -> None:
    assert rpc.parse(b"[" * 200_000).id is None
    assert rpc.parse(b'{"params":' + b"[" * 200_000 + b"]" * 200_000 + b',"id":1}').id is None


def test_number_of_too_many_digits_is_refused_under_its_id() -> None:
    message = rpc.parse(b'{"id":9,"method":"m","params":{"n":' + b"9" * 10_000 + b"}}")
    assert (message.kind, message.code, message.id) == (rpc.BAD, INVALID_REQUEST, 9)
    assert rpc.parse(b'{"method":"m","id":' + b"9" * 10_000 + b"}").id is None


def test_invalid_utf8_inside_a_string_is_replaced() -> None:
    message = rpc.parse(b'{"id":1,"method":"m","params":{"q":"a\xff\xfeb"}}')
    assert message.params == {"q": "a\ufffd\ufffdb"}


def test_lone_surrogates_survive_and_are_written_as_escapes() -> None:
    message = rpc.parse(rb'{"id":"\ud800","method":"m"}')
    assert message.id == "\ud800"
    line = rpc.error_line(message.id, -1, "x \udfff")
    assert rpc.parse(line).id == "\ud800"
    assert line.isascii()


def test_lines_are_compact_utf8_with_a_newline() -> None:
    assert rpc.result_line("é", {"a": [1, None]}) == '{"jsonrpc":"2.0","id":"é","result":{"a":[1,null]}}\n'.encode()
    assert rpc.error_line(0, -5, "no", {"x": 1}).endswith(b'"error":{"code":-5,"message":"no","data":{"x":1}}}\n')
    assert b"\n" not in rpc.error_line(None, -5, "two\nlines")[:-1]


def test_infinities_that_were_parsed_can_be_written_again() -> None:
    assert rpc.parse(rpc.to_bytes(rpc.parse(b'{"id":1,"method":"m","params":{"n":1e999}}').body)).params == {
        "n": math.inf
    }


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(TypeError):
        rpc.to_bytes({"x": {1}})


@settings(deadline=None)
@given(values)
def test_bytes_mean_the_same_as_the_json_package(value: Any) -> None:
    assert json.loads(rpc.to_bytes(value)) == value


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_parse_never_raises(line: bytes) -> None:
    assert rpc.parse(line).kind in {
        rpc.BAD,
        rpc.BLANK,
        rpc.REQUEST,
        rpc.NOTIFICATION,
        rpc.RESPONSE,
        rpc.BATCH,
    }


@settings(deadline=None)
@given(legal_ids, values, st.booleans(), st.booleans())
def test_id_of_a_response_is_found_and_replaced(id_: Any, value: Any, compact: bool, ascii_: bool) -> None:
    body = {"jsonrpc": "2.0", "id": id_, "result": value}
    separators = (",", ":") if compact else None
    line = json.dumps(body, separators=separators, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    found = rpc.find_id(line)
    if found is not None:
        assert rpc.key_of(found[0]) == rpc.key_of(id_)
    elif len(line) < 300:
        assert not line.isascii()
    assert json.loads(rpc.replace_id(line, "new")) == {**body, "id": "new"}


@pytest.mark.parametrize("line", [
    b'{"id":1,"result":{}}', b'{"jsonrpc":"2.0","id":1,"method":"m"}', b'{"jsonrpc":"2.0","id":1}', b"",
    b'{"jsonrpc":"2.0","id":"' + b"x" * 1000 + b'","result":1}', b'{"jsonrpc":"2.0","id":null,"result":1}',
    b'{"jsonrpc":"2.0","id":',
])  # fmt: skip
def test_id_is_not_guessed(line: bytes) -> None:
    assert rpc.find_id(line) is None


def test_parses_without_the_json_package_and_reports_errors_all_the_same() -> None:
    code = (
        "import sys; from mempalace_broker.protocol import jsonrpc as r;"
        "assert 'json' not in sys.modules and 're' not in sys.modules;"
        'assert r.find_id(b\'{"jsonrpc":"2.0","id":"x\') is None;'
        "assert r.parse(b'{\"id\":1').text.startswith('Parse error: Expecting'), r.parse(b'{\"id\":1').text"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize(
    ("id_", "good"),
    [("x" * 1024, True), ("x" * 1025, False), (10**1023, True), (-(10**1024), False), (10**1024, False)],
    ids=["text", "long text", "number", "long negative number", "long number"],
)
def test_ids_are_bounded(id_: object, good: bool) -> None:
    assert rpc.is_id(id_) is good


@pytest.mark.parametrize("data", [None, b"", b"[1]", b"null", b'"x"', b"{", b'{"a":1} {}', b"[" * 100_000, b"\xff"])
def test_whatever_is_not_an_object_counts_as_an_empty_one(data: bytes | None) -> None:
    assert rpc.load_object(data) == {}
    assert rpc.load_object(b'\xef\xbb\xbf{"a": 1}\n') == {"a": 1}
