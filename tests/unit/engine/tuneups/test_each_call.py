"""What is done around every call comes out as before: signatures of tools, and answers as JSON."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.engine.tuneups.each_call import KEPT_SIGNATURES, QUICK_JSON, indented
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.mempalace import FakeMempalace

# -- quick-json ------------------------------------------------------------------------------------------


class Word(str):
    pass


KEYS = st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.builds(Word, st.text())
LEAVES = KEYS | st.integers(-(10**40), 10**40) | st.text(st.characters(codec=None))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.dictionaries(KEYS, inner)
    ),
    max_leaves=30,
)


def stock(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


@given(VALUES)
def test_an_answer_is_written_as_by_python(value: Any) -> None:
    assert indented(value) == stock(value)


def nested(depth: int, last: Any) -> Any:
    for n in range(depth):
        last = {"down": last} if n % 2 else [last]
    return last


@pytest.mark.parametrize("depth", [*range(15, 25), 100])
def test_a_deep_one_as_well(depth: int) -> None:
    for last in ({}, [], "end", ["end"], {"the": "end"}):
        assert indented(nested(depth, last)) == stock(nested(depth, last))


def circular() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


REFUSED = {
    "circular": circular(),
    "object": {"a": object()},
    "set": [{1, 2}],
    "key": {(1, 2): 3},
    "bytes": b"bytes",
    "digits": [10**5000],
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_one_that_python_refuses_is_refused_alike(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        stock(value)
    with pytest.raises(type(theirs.value)) as ours:
        indented(value)
    assert str(ours.value) == str(theirs.value)


def test_only_answers_are_written_differently(tmp_path: Path) -> None:
    server = SimpleNamespace(json=json)
    QUICK_JSON.apply(FakeMempalace(tmp_path, server))  # type: ignore[arg-type]
    value = {"ä": [1, {}], "b": None}
    assert server.json.dumps(value, indent=2, ensure_ascii=False) == stock(value)
    assert server.json.dumps(value) == json.dumps(value)
    assert server.json.dumps(value, default=str, indent=1) == json.dumps(value, default=str, indent=1)
    assert server.json.loads("[1]") == [1]
    assert server.json.JSONDecodeError is json.JSONDecodeError
    assert json.dumps is not server.json.dumps


def test_a_server_with_another_json_is_left_alone(tmp_path: Path) -> None:
    server = SimpleNamespace(json=SimpleNamespace())
    with pytest.raises(DoesNotFit):
        QUICK_JSON.apply(FakeMempalace(tmp_path, server))  # type: ignore[arg-type]


# -- kept-signatures -------------------------------------------------------------------------------------


def plain(query: str, limit: int = 5) -> None:
    pass


def open_ended(entry: str, **rest: Any) -> None:
    pass


def test_a_tool_has_the_signature_that_it_had(tmp_path: Path) -> None:
    handlers: list[Any] = [plain, open_ended, lambda: None]
    before = [inspect.signature(one) for one in handlers]
    server = SimpleNamespace(TOOLS={str(n): {"handler": one} for n, one in enumerate(handlers)})
    KEPT_SIGNATURES.apply(FakeMempalace(tmp_path, server))  # type: ignore[arg-type]
    assert [inspect.signature(one) for one in handlers] == before
    assert inspect.signature(plain) is inspect.signature(plain)


@pytest.mark.parametrize("tools", [None, [], {"one": {"handler": print}}, {"one": {}}])
def test_tools_of_another_kind_are_left_alone(tmp_path: Path, tools: Any) -> None:
    with pytest.raises(DoesNotFit):
        KEPT_SIGNATURES.apply(FakeMempalace(tmp_path, SimpleNamespace(TOOLS=tools)))  # type: ignore[arg-type]
