"""Like jsonc.py, for YAML whose servers are a list of entries with a `name`; every other byte stays as it is. Pure.

ruamel.yaml says where a value begins and ends; the new value is written as JSON, which is valid YAML.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ....errors import UsageError
from .jsonc import line_end

_NAME = "name"
_HEAD = "name: Local Assistant\nversion: 1.0.0\nschema: v1\n"  # Continue rejects a file without these
_BY_HAND = "correct it by hand"
_MOST = 1 << 20  # characters; it takes seconds for more


def get(text: str, path: tuple[str, ...]) -> Any:
    """Return the value at `path`, in which a list's entry is named; None if there is none. Raises UsageError."""
    value = _load(text)
    for key in path:
        value = _inside(value, key)
        if key == path[0] and isinstance(value, dict):
            raise UsageError(f"{key} is not a list.", hint=_BY_HAND)
    return value


def put(text: str, path: tuple[str, ...], value: Any) -> str:
    """Return the text with `value` at `path`: an entry, which gets its name, or a field of one. Raises UsageError."""
    servers, name, *field = path
    new = value if field else {_NAME: name, **value}
    there = get(text, (servers, name)) is not None
    if not text.strip():
        made = _HEAD + _list(servers, new, "\n")
    elif not there:
        made = _append(text, servers, new)
    else:
        made = _set(text, servers, name, field[0], value) if field else _replace(text, servers, name, new)
    return _checked(made, _changed(_load(text or _HEAD), servers, name, field, new))


def drop(text: str, path: tuple[str, ...]) -> str:
    """Return the text without the entry at `path`. Raises UsageError."""
    servers, name = path
    if get(text, path) is None:
        return text
    expected = _load(text)
    expected[servers] = [entry for entry in expected[servers] if _inside([entry], name) is None]
    made = _without(text, servers, name)
    return _checked(made, expected if get(made, (servers,)) is not None else {**expected, servers: None})


# --- reading


def _load(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text) > _MOST:
        raise UsageError(f"it is larger than {_MOST:,} characters.", hint=_BY_HAND)
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as exc:
        where = getattr(exc, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise UsageError(f"it is not YAML ({getattr(exc, 'problem', None) or exc}{line}).", hint=_BY_HAND) from exc


def _compose(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).compose(text)


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return next((entry for entry in value if isinstance(entry, dict) and entry.get(_NAME) == key), None)
    return value.get(key) if isinstance(value, dict) else None


def _pair(mapping: Any, key: str) -> tuple[Any, Any] | None:
    """Return the nodes of a key and of its value."""
    return next(((k, v) for k, v in mapping.value if k.value == key), None)


def _sequence(text: str, servers: str) -> tuple[Any, Any] | None:
    """Return the nodes of the list's key and of the list. Raises UsageError if the file is not a mapping."""
    root = _compose(text)
    if root is None or not isinstance(root.value, list) or root.id != "mapping" or root.flow_style:
        raise _unsafe()
    return _pair(root, servers)


def _entry(sequence: Any, name: str) -> Any:
    for node in sequence.value:
        if node.id == "mapping" and (pair := _pair(node, _NAME)) and pair[1].value == name:
            return node
    raise _unsafe()


def _end(node: Any) -> int:
    """Return where a value ends; the end of a block is that of its last part."""
    if node.id == "scalar" or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


# --- writing


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(entry: dict[str, Any], indent: str, newline: str) -> str:
    fields = [f"{key}: {_json(value)}" for key, value in entry.items()]
    return "".join(f"{indent}{'  ' if number else '- '}{field}{newline}" for number, field in enumerate(fields))


def _list(servers: str, entry: dict[str, Any], newline: str) -> str:
    return f"{servers}:{newline}{_lines(entry, '  ', newline)}"


def _append(text: str, servers: str, entry: dict[str, Any]) -> str:
    newline = line_end(text)
    found = _sequence(text, servers)
    if found is None:
        return text + ("" if text.endswith("\n") else newline) + _list(servers, entry, newline)
    key, node = found
    if node.id == "sequence" and node.value and not node.flow_style:
        at = _next_line(text, _end(node.value[-1]))
        gap = "" if text[:at].endswith("\n") else newline
        return text[:at] + gap + _lines(entry, " " * node.start_mark.column, newline) + text[at:]
    if node.id == "sequence" and node.value:
        at = node.end_mark.index - 1
        return f"{text[:at]}, {_json(entry)}{text[at:]}"
    if node.id != "sequence" and node.value not in ("", "null", "~"):
        raise UsageError(f"{servers} is not a list.", hint=_BY_HAND)
    colon = text.index(":", key.end_mark.index) + 1
    end = colon if node.value == "" else node.end_mark.index
    at = _next_line(text, end)
    gap = "" if text[:at].endswith("\n") else newline
    return text[:colon] + text[end:at] + gap + _lines(entry, "  ", newline) + text[at:]


def _set(text: str, servers: str, name: str, field: str, value: Any) -> str:
    node = _entry(_found(text, servers), name)
    pair = _pair(node, field)
    if pair is not None:
        colon = text.index(":", pair[0].end_mark.index) + 1
        end = _end(pair[1])
        if "#" in text[colon : pair[1].start_mark.index]:
            raise _unsafe()
        return f"{text[:colon]} {_json(value)}{text[end:]}"
    if node.flow_style:
        at = node.end_mark.index - 1
        return f"{text[:at]}, {field}: {_json(value)}{text[at:]}"
    at = _next_line(text, _end(node))
    newline = line_end(text)
    gap = "" if text[:at].endswith("\n") else newline
    return f"{text[:at]}{gap}{' ' * node.start_mark.column}{field}: {_json(value)}{newline}{text[at:]}"


def _replace(text: str, servers: str, name: str, entry: dict[str, Any]) -> str:
    node = _entry(_found(text, servers), name)
    start = int(node.start_mark.index)
    if node.flow_style:
        return text[:start] + _json(entry) + text[_end(node) :]
    fields = [f"{key}: {_json(value)}" for key, value in entry.items()]
    newline = line_end(text) + " " * int(node.start_mark.column)
    return text[:start] + newline.join(fields) + text[_end(node) :]


def _without(text: str, servers: str, name: str) -> str:
    sequence = _found(text, servers)
    node = _entry(sequence, name)
    if sequence.flow_style:
        rest = text[_end(node) :]
        before = text[: node.start_mark.index]
        if comma := re.match(r"\s*,\s*", rest):
            return before + rest[comma.end() :]
        return re.sub(r"\s*,\s*\Z", "", before) + rest
    dash = text.rindex("-", 0, node.start_mark.index)
    start, end = text.rfind("\n", 0, dash) + 1, _next_line(text, _end(node))
    if len(sequence.value) > 1:
        return text[:start] + text[end:]
    head = text[:start].rstrip()
    return f"{head} []{text[len(head) : start]}{text[end:]}" if head.endswith(":") else text[:start] + text[end:]


def _found(text: str, servers: str) -> Any:
    found = _sequence(text, servers)
    if found is None:
        raise _unsafe()
    return found[1]


def _next_line(text: str, at: int) -> int:
    """Return where the next line begins: a comment at the end of this one stays there."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


# --- checking


def _changed(data: Any, servers: str, name: str, field: list[str], new: Any) -> Any:
    """Return what `data` should be afterwards."""
    entries = list(data.get(servers) or [])
    old = _inside(entries, name)
    if old is None:
        entries.append(new)
    else:
        entries = [({**old, field[0]: new} if field else new) if entry is old else entry for entry in entries]
    return {**data, servers: entries}


def _checked(text: str, expected: Any) -> str:
    try:
        said = _load(text)
    except UsageError:
        said = None
    if said != expected:
        raise _unsafe()
    return text


def _unsafe() -> UsageError:
    return UsageError("its form can't be changed safely.", hint="change it by hand")
