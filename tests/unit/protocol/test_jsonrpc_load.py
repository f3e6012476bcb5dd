"""One JSON value from bytes, as the json package reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.jsonrpc import load

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values, st.sampled_from([None, 1]))
def test_as_the_json_package(value: object, indent: int | None) -> None:
    assert load(json.dumps(value, indent=indent).encode()) == value


def test_with_a_byte_order_mark() -> None:
    assert load(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    "data", [b"", b" ", b"1,2", b"],[", b"1]", b"[1", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000, b'{"a":1}{"b":2}']
)
def test_everything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(data)
