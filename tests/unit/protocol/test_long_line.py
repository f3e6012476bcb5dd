"""Long lines, slice by slice: what is passed is checked, long texts are left out, and every step costs little."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.errors import INVALID_REQUEST, PARSE_ERROR
from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.protocol import long_line
from mempalace_broker.protocol.long_line import LONG_TEXT, MAX_REST, MAX_VALUES, SLICE, LongLine


def request(value: str) -> bytes:
    return b'{"id":"mine","method":"x","params":{"a":' + value.encode() + b"}}"


def passed(line: bytes) -> tuple[rpc.Message, int]:
    """What comes of a line, and after how many steps."""
    long, steps = LongLine(line), 1
    while (message := long.step()) is None:
        steps += 1
    return message, steps


# what is long, what is short, and what tells one from the other: escapes and quotes at every place of a slice
TEXTS = st.builds(
    lambda unit, count, end: unit * count + end,
    st.sampled_from(["x", "é", "\\", '"', "\n", "\\\"", "[],{}", "\U0001f600", "ab\\", "\x7f\u2028"]),
    st.sampled_from([0, 1, 7, LONG_TEXT // 2, LONG_TEXT, SLICE // 3, SLICE]),
    st.text(max_size=3),
)  # fmt: skip
VALUES = st.recursive(
    TEXTS | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def shortened(value: Any) -> Any:
    """`value` with a mark for each text that may have been left out."""
    if isinstance(value, str):
        return value if len(json.dumps(value)) - 2 <= LONG_TEXT else "long"
    if isinstance(value, list):
        return [shortened(part) for part in value]
    if isinstance(value, dict):
        return {name: shortened(part) for name, part in value.items()}
    return value


def read(message: rpc.Message) -> Any:
    def mark(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("\0-"):
            return "long"
        if isinstance(value, list):
            return [mark(part) for part in value]
        return {name: mark(part) for name, part in value.items()} if isinstance(value, dict) else value

    return mark(message.params["a"])


@given(VALUES, st.booleans())
def test_it_reads_what_the_scanner_reads(value: Any, ascii_: bool) -> None:
    line = request(json.dumps(value, ensure_ascii=ascii_))
    message, steps = passed(line)
    assert message.kind == rpc.REQUEST
    assert steps <= 1 + len(line) // (SLICE - LONG_TEXT - 10)
    if ascii_:
        assert read(message) == shortened(value)
    assert long_line.parse(line).params["a"] == json.loads(json.dumps(value))


@pytest.mark.parametrize("where", range(SLICE - 50, SLICE - 30))
def test_no_slice_ends_within_an_escape(where: int) -> None:
    for text in ("\\u00e9" * 20, "\\\\" * 60, '\\\\\\"' * 40, "\\ud83d\\ude00" * 10):
        line = request('"' + "x" * (where - 41) + text + '"')
        assert long_line.parse(line + b" " * 100).params["a"] == json.loads(b'"' + line[41:-3] + b'"')


@pytest.mark.parametrize("value", ["[]", "{}", "1", '""', '{"a":1}', '"\\\\"', '"\\""', "[["])
def test_a_line_of_too_many_values_is_refused_before_it_is_parsed(value: str) -> None:
    line = request("[" + (value + ",") * (4 * MAX_VALUES) + "0]")
    message, steps = passed(line)
    assert (message.kind, message.code, message.id) == (rpc.BAD, INVALID_REQUEST, "mine")
    assert f"more than {MAX_VALUES} values" in message.text
    assert steps <= len(line) // SLICE // 2, "the rest need not be looked at"


@pytest.mark.parametrize(
    "value", ["[" + " " * MAX_REST + "]", "1" * MAX_REST, '"' + '","'.join(["x" * 8000] * 2100) + '"']
)
def test_what_is_parsed_at_once_is_bounded(value: str) -> None:
    message, _ = passed(request(value))
    assert (message.code, message.id) == (INVALID_REQUEST, "mine")
    assert "beside its long texts" in message.text


@pytest.mark.parametrize("bad", ["\\x", "\\u12", "\x01", "\\", "\\u00zz"])
@pytest.mark.parametrize("before", [0, LONG_TEXT, SLICE, 3 * SLICE])
@pytest.mark.parametrize("after", [0, SLICE])
def test_what_is_wrong_in_a_long_text_is_found(bad: str, before: int, after: int) -> None:
    line = request('"' + "x" * before + bad + "y" * after + '"' + " " * SLICE)
    assert passed(line)[0].code == PARSE_ERROR
    assert passed(line[: SLICE + 100])[0].code == PARSE_ERROR


@pytest.mark.parametrize("begin", [b"x", b'"x', b"1", b"null ", b"\xff"])
def test_what_does_not_begin_like_a_message_is_answered_at_once(begin: bytes) -> None:
    message, steps = passed(begin * (20 << 20))
    assert (message.kind, steps) == (rpc.BAD, 1)


def test_nothing_that_was_left_out_passes_for_a_name_or_an_id() -> None:
    long = json.dumps("/" * 2 * LONG_TEXT)
    message, _ = passed(b'{"id":%b,"method":"x","params":{}}' % long.encode())
    assert (message.kind, message.code) == (rpc.BAD, INVALID_REQUEST)
    message, _ = passed(request(long))
    assert not message.params["a"].startswith("/")


def test_any_bytes_end_in_a_message() -> None:
    rng = random.Random(7)
    for _ in range(200):
        words = rng.choices(
            [b'"', b"\\", b"[", b"}", b",", b'"x', b"\xff", b"x" * LONG_TEXT, b"\\\\" * 9000, b" " * 999], k=60
        )
        line = b"".join(words)
        message, _ = passed(line)
        assert (message.kind == rpc.BAD) == (rpc.parse(line).kind == rpc.BAD)
