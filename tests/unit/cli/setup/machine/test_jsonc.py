"""Changing one value in JSON with comments: another reader agrees on the values, and nothing else moves."""

from __future__ import annotations

import json
from typing import Any

import json5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.cli.setup.machine.jsonc import drop, get, put
from mempalace_broker.errors import UsageError

PATH = ("mcpServers", "mempalace")
ENTRY = {"command": "/opt/mp-shim", "args": []}


def read(text: str) -> Any:
    """What json-five makes of it."""
    return json5.loads(text.removeprefix("\ufeff"))


TEXTS = [
    '{\n  "mcpServers": {\n    "other": {"command": "x"}\n  }\n}\n',
    '{\n  "mcpServers": {\n    "other": {"command": "x"}, // last, with a comma\n  },\n}\n',
    '// head\n{\n\t"a": 1, /* b */\n\t"mcpServers": {\n\t\t"other": {} // why\n\t\t/* more */\n\t}\n}',
    '{"mcpServers":{"other":{}}}',
    '{ "mcpServers": { "other": {"a": [1, 2,],}, } }',
    '{\r\n    "mcpServers": {\r\n        "other": null\r\n    }\r\n}\r\n',
    '\ufeff{\n  "mcpServers": {"a": "// no comment", "b": "/* nor */ \\" this"}\n}\n',
    '{\n  "mcpServers": {\n    "a": {} /* } */ ,\n    // "mempalace": {}\n    "b": -1.5e3 }\n}\n',
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_put_in_can_be_taken_out_to_the_byte(text: str) -> None:
    new = put(text, PATH, ENTRY)
    expected = read(text)
    expected["mcpServers"]["mempalace"] = ENTRY
    assert read(new) == expected
    assert get(new, PATH) == ENTRY
    assert drop(new, PATH) == text
    position = 0
    for char in new:  # nothing was moved or lost: the old text is what is left where something was put in
        position += position < len(text) and text[position] == char
    assert position == len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '{\n  "mcpServers": {\n    "mempalace": 1\n  }\n}\n'),
        ("{}", '{\n  "mcpServers": {\n    "mempalace": 1\n  }\n}'),
        ("// mine\n", '// mine\n{\n  "mcpServers": {\n    "mempalace": 1\n  }\n}\n'),
        ("{ /* c */ }", '{ /* c */\n  "mcpServers": {\n    "mempalace": 1\n  }\n}'),
        (
            '{\n    "a": 1\n}\n',
            '{\n    "a": 1,\n    "mcpServers": {\n        "mempalace": 1\n    }\n}\n',
        ),
        (
            '{\n  "mcpServers": {},\n  "z": 1\n}\n',
            '{\n  "mcpServers": {\n    "mempalace": 1\n  },\n  "z": 1\n}\n',
        ),
    ],
)
def test_it_looks_as_its_surroundings_do(text: str, expected: str) -> None:
    assert put(text, PATH, 1) == expected


def test_a_value_is_replaced_where_it_stands() -> None:
    text = '{"mcpServers": {"mempalace": {"command": "mempalace-mcp", /* mine */ "env": {"A": "b"}}, "z": 1}} // end'
    new = put(text, (*PATH, "command"), "/opt/mp-shim")
    assert new == text.replace('"mempalace-mcp"', '"/opt/mp-shim"')


def test_a_comment_does_not_swallow_what_follows() -> None:
    text = '{ // head\n  "mempalace": 1, "b": 2 }'
    assert read(drop(text, ("mempalace",))) == {"b": 2}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"a" 1}',
        '{"a": 1 "b": 2}',
        "{'a': 1}",
        '{"a": tru}',
        "[1 2]",
        '{"a": 1}}',
        "{,}",
        "nonsense",
        "[" * 5000,
        '{"a": 01}',
    ],
)
def test_what_is_no_json_is_refused_with_the_line(text: str) -> None:
    with pytest.raises(UsageError):
        put(text, PATH, 1)


@pytest.mark.parametrize("text", ["[]", "1", '{"mcpServers": []}', '{"mcpServers": "x"}'])
def test_only_objects_get_members(text: str) -> None:
    with pytest.raises(UsageError, match="not an object"):
        put(text, PATH, 1)


# --- anything

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab/*"\\{}\n,é', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz/*", max_size=2), inner, max_size=3),
    max_leaves=8,
)
TRIVIA = st.sampled_from(["", " ", "\n", "\n  ", "\t", " /* , } */ ", ' // { "\n', "\r\n"])


@st.composite
def written(draw: st.DrawFn, value: Any, depth: int = 0) -> str:
    """That value, with comments and commas where they may stand."""

    def gap() -> str:
        return draw(TRIVIA)

    if not isinstance(value, dict | list) or depth > 3:
        return json.dumps(value, ensure_ascii=draw(st.booleans()))
    parts = []
    for key in value:
        name = f"{json.dumps(key)}{gap()}:{gap()}" if isinstance(value, dict) else ""
        inner = draw(written(value[key] if isinstance(value, dict) else key, depth + 1))
        parts.append(f"{gap()}{name}{inner}{gap()}")
    comma = draw(st.sampled_from(["", ","])) if parts else ""
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{','.join(parts)}{comma}{gap()}{closing}"


@given(st.data())
def test_any_text_keeps_what_it_says(data: st.DataObject) -> None:
    value: dict[str, Any] = {
        **data.draw(st.dictionaries(st.sampled_from(["a", "b", "mcpServers"]), VALUES, max_size=3))
    }
    value["mcpServers"] = data.draw(st.dictionaries(st.sampled_from(["o", "mempalace"]), VALUES, max_size=2))
    text = data.draw(written(value))
    new = put(text, PATH, ENTRY)
    assert read(new) == {**value, "mcpServers": {**value["mcpServers"], "mempalace": ENTRY}}
    gone = drop(new, PATH)
    assert "mempalace" not in read(gone)["mcpServers"]
    if "mempalace" not in value["mcpServers"] and value["mcpServers"]:
        assert gone == text
