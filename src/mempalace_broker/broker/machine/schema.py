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

from collections.abc import Callable, Iterable, Mapping
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
    lifted = _lift_root(schema) if _root_breaks(schema) else schema
    accepted = _normalise(lifted, 0)
    return accepted if isinstance(accepted, dict) else lifted


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
        _add_missing(properties, _join([branch[0] for branch in flat], word))
        demands = [branch[1] for branch in flat]
        required += _in_any(demands) if word == "allOf" else _in_all(demands)
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


def _add_missing(properties: Schema, more: Schema) -> None:
    # The root's schema of a property holds in every branch; a branch could only narrow it.
    for name, prop in more.items():
        properties.setdefault(name, prop)


def _in_any(lists: list[list[str]]) -> list[str]:
    return [name for names in lists for name in names]


def _in_all(lists: list[list[str]]) -> list[str]:
    return [name for name in lists[0] if all(name in names for names in lists[1:])]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _normalise(schema: Any, depth: int) -> Any:
    """Apply the rules that hold anywhere; return the same object if it breaks none."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return schema
    changed = _normalise_children(schema, depth)
    out = {**schema, **changed} if changed else schema
    for rule in (_array_has_items, _required_is_there, _enum_on_strings):
        out = rule(out)
    return out


def _normalise_children(schema: Schema, depth: int) -> Schema:
    """The members of `schema` that hold schemas and had to be changed."""

    def child(value: Any) -> Any:
        return _normalise(value, depth + 1)

    changed: Schema = {}
    for words, apply in (
        (_SUBSCHEMAS, child),
        (_SUBSCHEMA_LISTS, _each(child)),
        (_SUBSCHEMA_MAPS, _values(child)),
    ):
        for word in words:
            if word in schema and (new := apply(schema[word])) is not schema[word]:
                changed[word] = new
    return changed


def _each(child: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        new = [child(item) for item in value]
        return value if all(a is b for a, b in zip(new, value, strict=True)) else new

    return apply


def _values(child: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        new = {name: child(item) for name, item in value.items()}
        return value if all(new[name] is value[name] for name in value) else new

    return apply


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
