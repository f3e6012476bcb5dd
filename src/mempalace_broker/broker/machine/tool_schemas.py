"""Tool schemas that every model provider accepts.

One tool whose `inputSchema` has `anyOf` at its root (mempalace 3.4.0: diary_write) makes Anthropic and Codex
reject the whole tool array, and the session is dead. The hard rules, as providers state them:

    root        type "object"; no anyOf, oneOf, allOf, not, enum
    anywhere    an array has items; required names only what properties has; enum only on strings (Gemini)

Applying a rule only ever removes a *restriction*: the engine checks its arguments itself, whatever the
schema says. A tool that breaks no rule is returned as the very same object.

Soft rules (keyword subsets, long descriptions, objects without properties) are left alone: no provider
rejects them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Schema = dict[str, Any]

_COMBINATORS = ("allOf", "anyOf", "oneOf")
_FORBIDDEN_AT_ROOT = (*_COMBINATORS, "not", "enum")
_SUBSCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SUBSCHEMA_LISTS = (*_COMBINATORS, "prefixItems")
_SUBSCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_MAX_DEPTH = 40  # far beyond any tool; deeper parts are left as they are


def normalise_tools(tools: Iterable[Any]) -> list[Any]:
    """The tools of a tools/list result with acceptable schemas; the input is not changed.

    Entries that are not tools stay as they are: a client should see what the engine said.
    """
    return [_normalise_tool(tool) for tool in tools]


def _normalise_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or "name" not in tool:
        return tool
    schema = tool.get("inputSchema")
    better = normalise_schema(schema)
    return tool if better is schema else {**tool, "inputSchema": better}


def normalise_schema(schema: Any) -> Schema:
    """An object schema that breaks no hard rule; `schema` itself where it breaks none."""
    if not isinstance(schema, dict):
        return {"type": "object", "properties": {}}
    accepted: Schema = _normalise(_lift_root(schema) if _root_breaks(schema) else schema, 0)
    return schema if accepted == schema else accepted


def _root_breaks(schema: Schema) -> bool:
    return schema.get("type") != "object" or any(word in schema for word in _FORBIDDEN_AT_ROOT)


def _lift_root(schema: Schema) -> Schema:
    """One object schema that accepts whatever `schema` accepts: all properties, what all branches require."""
    properties, required = _flatten(schema, 0)
    out = {key: value for key, value in schema.items() if key not in _FORBIDDEN_AT_ROOT}
    out["type"] = "object"
    if properties or "properties" in out:
        out["properties"] = properties
    if required:
        out["required"] = required
    else:
        out.pop("required", None)
    return out


def _flatten(schema: Any, depth: int) -> tuple[Schema, list[str]]:
    """(properties, required) of an object schema and of all its branches."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {}, []
    properties = dict(_mapping(schema.get("properties")))
    required = _names(schema.get("required"))
    for word in _COMBINATORS:
        branches = schema.get(word)
        if not isinstance(branches, list) or not branches:
            continue
        flat = [_flatten(branch, depth + 1) for branch in branches]
        # The root's schema of a property holds in every branch; a branch could only narrow it.
        properties = _join([branch[0] for branch in flat], word) | properties
        every = [name for _, names in flat for name in names]
        required += every if word == "allOf" else [n for n in every if all(n in names for _, names in flat)]
    return properties, list(dict.fromkeys(required))


def _join(branches: list[Schema], word: str) -> Schema:
    """Properties of sibling branches; one that they describe differently becomes a choice (or an allOf)."""
    seen: dict[str, list[Any]] = {}
    for branch in branches:
        for name, prop in branch.items():
            variants = seen.setdefault(name, [])
            if prop not in variants:
                variants.append(prop)
    nested = "allOf" if word == "allOf" else "anyOf"  # two oneOf branches may well allow the same value here
    return {name: variants[0] if len(variants) == 1 else {nested: variants} for name, variants in seen.items()}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _normalise(schema: Any, depth: int) -> Any:
    """Apply the rules that hold anywhere, to a schema and to all schemas in it."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return schema
    out: Schema = {}
    for word, value in schema.items():
        if word in _SUBSCHEMAS:
            out[word] = _normalise(value, depth + 1)
        elif word in _SUBSCHEMA_LISTS and isinstance(value, list):
            out[word] = [_normalise(item, depth + 1) for item in value]
        elif word in _SUBSCHEMA_MAPS and isinstance(value, dict):
            out[word] = {name: _normalise(item, depth + 1) for name, item in value.items()}
        else:
            out[word] = value
    for rule in (_array_has_items, _required_is_there, _enum_on_strings):
        out = rule(out)
    return out


def _array_has_items(schema: Schema) -> Schema:
    kind = schema.get("type")
    is_array = kind == "array" or (isinstance(kind, list) and "array" in kind)
    return {**schema, "items": {}} if is_array and not isinstance(schema.get("items"), dict) else schema


def _required_is_there(schema: Schema) -> Schema:
    if "required" not in schema:
        return schema
    if "properties" not in schema and "type" not in schema:
        return schema  # a branch such as {"required": ["entry"]}: its properties stand further up
    properties = _mapping(schema.get("properties"))
    names = [name for name in _names(schema["required"]) if name in properties]
    if names == schema["required"]:
        return schema
    rest = {key: value for key, value in schema.items() if key != "required"}
    return {**rest, "required": names} if names else rest


def _enum_on_strings(schema: Schema) -> Schema:
    """Values that are not strings move into the description, where a model still reads them."""
    values = schema.get("enum")
    if "enum" not in schema or (
        isinstance(values, list)
        and values
        and all(isinstance(value, str) for value in values)
        and schema.get("type", "string") == "string"
    ):
        return schema
    rest = {key: value for key, value in schema.items() if key != "enum"}
    if not isinstance(values, list) or not values:
        return rest
    hint = "One of: " + ", ".join(repr(value) if isinstance(value, str) else str(value) for value in values)
    text = schema.get("description")
    rest["description"] = f"{text} {hint}" if isinstance(text, str) and text else hint
    return rest
