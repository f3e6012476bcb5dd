"""Schemas: what is corrected, what is left alone; nothing that an engine says makes it raise."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.broker.machine.tool_schemas import normalise_schema, normalise_tools

DATA = Path(__file__).parents[3] / "data"
FORBIDDEN = {"anyOf", "oneOf", "allOf", "not", "enum"}


def tools_of(version: str) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = json.loads((DATA / f"tools-{version}.json").read_text(encoding="utf-8"))
    return tools


def violations(schema: Any, where: str = "root") -> list[str]:
    """The providers' hard rules, written down a second time and independently."""
    found: list[str] = []
    if where == "root":
        found += [f"root has {word}" for word in FORBIDDEN & set(schema)]
        found += [] if schema.get("type") == "object" else ["root is no object"]
        found += [
            f"key {key!r}" for key in schema.get("properties", {}) if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", key)
        ]
    if not isinstance(schema, dict):
        return found
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        found.append(f"{where}: array without items")
    if "enum" in schema and schema.get("type", "string") != "string":
        found.append(f"{where}: enum on {schema['type']}")
    if "properties" in schema and not set(schema.get("required", [])) <= set(schema["properties"]):
        found.append(f"{where}: required beyond properties")
    for name, value in schema.get("properties", {}).items():
        found += violations(value, f"{where}.{name}")
    found += violations(schema["items"], f"{where}[]") if isinstance(schema.get("items"), dict) else []
    return found


@pytest.mark.parametrize("version", ["3.4.0", "3.11.0"])
def test_real_tools_are_acceptable_afterwards(version: str) -> None:
    for tool in normalise_tools(tools_of(version)):
        assert violations(tool["inputSchema"]) == [], tool["name"]
        assert len("mcp__mempalace__" + tool["name"]) <= 64


def test_only_the_diary_of_3_4_0_was_unacceptable() -> None:
    broken = [tool["name"] for tool in tools_of("3.4.0") if violations(tool["inputSchema"])]
    assert broken == ["mempalace_diary_write"]


@pytest.mark.parametrize("version", ["3.4.0", "3.11.0"])
def test_every_other_tool_comes_back_as_the_same_object(version: str) -> None:
    before = tools_of(version)
    kept = copy.deepcopy(before)
    after = normalise_tools(before)
    assert before == kept, "the input was changed"
    touched = [old["name"] for old, new in zip(before, after, strict=True) if old is not new]
    assert touched == (["mempalace_diary_write"] if version == "3.4.0" else [])


def test_diary_write_keeps_both_spellings_and_all_its_words() -> None:
    [before] = [tool for tool in tools_of("3.4.0") if tool["name"] == "mempalace_diary_write"]
    [after] = normalise_tools([before])
    expected = {key: value for key, value in before["inputSchema"].items() if key != "anyOf"}
    assert after == {**before, "inputSchema": expected}
    assert {"entry", "content"} <= set(after["inputSchema"]["properties"])
    assert after["inputSchema"]["required"] == ["agent_name"]


def test_branches_are_lifted_and_only_what_all_of_them_require_stays_required() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string"}},
        "required": ["id"],
        "oneOf": [
            {"properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a", "n"]},
            {"properties": {"b": {"type": "string"}, "n": {"type": "integer"}}, "required": ["b", "n"]},
        ],
    }
    assert normalise_schema(schema) == {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "a": {"type": "string"},
            "n": {"type": "integer"},
            "b": {"type": "string"},
        },
        "required": ["id", "n"],
    }


def test_all_of_requires_everything() -> None:
    schema = {
        "allOf": [
            {"properties": {"a": {}}, "required": ["a"]},
            {"anyOf": [{"properties": {"b": {}}, "required": ["b"]}, {"properties": {"c": {}}}]},
        ],
        "not": {"required": ["z"]},
    }
    assert normalise_schema(schema) == {
        "type": "object",
        "properties": {"a": {}, "b": {}, "c": {}},
        "required": ["a"],
    }


def test_a_property_that_branches_describe_differently_becomes_a_choice_below_the_root() -> None:
    text, number = {"type": "string"}, {"type": "number"}
    schema = {"type": "object", "anyOf": [{"properties": {"v": text}}, {"properties": {"v": number}}]}
    assert normalise_schema(schema)["properties"] == {"v": {"anyOf": [text, number]}}


def test_what_the_root_says_of_a_property_wins() -> None:
    schema = {
        "type": "object",
        "properties": {"mode": {"type": "string"}},
        "anyOf": [{"properties": {"mode": {"const": "a"}}}, {"properties": {"mode": {"const": "b"}}}],
    }
    assert normalise_schema(schema)["properties"] == {"mode": {"type": "string"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"type": "array"}, {"type": "array", "items": {}}),
        ({"type": "object", "required": ["a"]}, {"type": "object"}),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, {"properties": {"a": {}}, "required": ["a"]}),
        ({"type": ["array", "null"]}, {"type": ["array", "null"], "items": {}}),
        (
            {"type": "integer", "enum": [1, 2], "description": "How many."},
            {"type": "integer", "description": "How many. One of: 1, 2"},
        ),
        ({"enum": ["a", None]}, {"description": "One of: 'a', None"}),
        ({"type": "string", "enum": []}, {"type": "string"}),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]},
            {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        ),
        (
            {"anyOf": [{"type": "array"}, {"type": "null"}]},
            {"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]},
        ),
    ],
)
def test_nested_rules(before: dict[str, Any], after: dict[str, Any]) -> None:
    outer = {"type": "object", "properties": {"x": before, "y": {"type": "array", "items": before}}}
    expected = {"type": "object", "properties": {"x": after, "y": {"type": "array", "items": after}}}
    assert normalise_schema(outer) == expected


@pytest.mark.parametrize(
    "nested",
    [
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"enum": {"type": "string"}, "anyOf": {"type": "string"}}},
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    ],
)
def test_acceptable_parts_are_left_alone(nested: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"x": nested}}
    assert normalise_schema(schema) is schema


@pytest.mark.parametrize("broken", [None, True, [], "text", 7])
def test_an_invalid_schema_becomes_the_empty_one(broken: object) -> None:
    assert normalise_schema(broken) == {"type": "object", "properties": {}}
    assert normalise_tools([broken, {"no": "name"}]) == [broken, {"no": "name"}]


@pytest.mark.parametrize(("depth", "seen"), [(1, True), (40, True), (41, False)])
def test_rules_reach_40_levels_deep(depth: int, seen: bool) -> None:
    array: dict[str, Any] = {"type": "array"}
    branch: dict[str, Any] = {"properties": {"deepest": {"type": "string"}}}
    for _ in range(depth - 1):
        array = {"type": "array", "items": array}
    for _ in range(depth):
        branch = {"anyOf": [branch]}
    found = normalise_schema({"type": "object", "properties": {"x": array}})
    assert json.dumps(found).count('"items"') == depth - 1 + seen
    assert ("deepest" in json.dumps(normalise_schema(branch))) is seen


def test_deep_nesting_does_no_harm() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for level in range(500):
        deep = {"type": "object", "properties": {"x": deep}} if level % 2 else {"anyOf": [deep, {}]}
    assert FORBIDDEN & set(normalise_schema(deep)) == set()


_KEYS = st.sampled_from(
    [
        *(
            "type",
            "properties",
            "required",
            "items",
            "enum",
            "anyOf",
            "oneOf",
            "allOf",
            "not",
            "$defs",
            "description",
        ),
        *("a", "b", "additionalProperties", "default"),
    ]
)
_ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(["object", "array", "string", "integer", "a", "b", ""])
)
_ANYTHING = st.recursive(
    _ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=400)
@given(schema=_ANYTHING | st.dictionaries(_KEYS, _ANYTHING, max_size=6))
def test_whatever_an_engine_says(schema: Any) -> None:
    kept = copy.deepcopy(schema)
    once = normalise_schema(schema)
    assert schema == kept, "the input was changed"
    assert once["type"] == "object"
    assert FORBIDDEN & set(once) == set()
    assert normalise_schema(once) is once, "not idempotent"
    json.dumps(once)
    if isinstance(schema, dict) and isinstance(schema.get("properties"), dict):
        assert set(once["properties"]) >= set(schema["properties"])
