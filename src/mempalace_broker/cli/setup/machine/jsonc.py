"""Change one value in JSON with comments and trailing commas; every other byte stays as it is. Pure.

`get`, `put` and `drop` take the text and a path of keys. What is changed is read again and compared with what it should
be, so a text that this module misunderstands is refused, not spoiled.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, NoReturn

from ....errors import UsageError

_TRIVIA = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_PLAIN = re.compile(r"-?\d[\d.eE+-]*|true|false|null")
_BOM = "\ufeff"
_DEEPEST = 200
_UNIT = "  "


class Node(NamedTuple):
    """A value, text[start:end]. Of an object `members`; `comma`: whether a comma follows the last of them."""

    start: int
    end: int
    value: Any
    members: tuple[Member, ...] = ()
    comma: bool = False

    @property
    def is_object(self) -> bool:
        """Whether it can have members."""
        return isinstance(self.value, dict)


class Member(NamedTuple):
    """A key that begins at `start`, its value, and where a comma follows that (-1: nowhere)."""

    key: str
    start: int
    node: Node
    comma: int


def get(text: str, path: tuple[str, ...]) -> Any:
    """The value at `path`, None where there is none. Raises UsageError where the text is not such JSON."""
    value = _parse(text).value
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def put(text: str, path: tuple[str, ...], value: Any) -> str:
    """The text with `value` at `path`; objects on the way that are missing are made.

    Raises:
        UsageError: the text is not such JSON, or something on the way is not an object.
    """
    root = node = _parse(text)
    if root.start == len(text):  # nothing but comments
        return put(text + ("\n" if text.strip(_BOM) and not text.endswith("\n") else "") + "{}\n", path, value)
    for depth, key in enumerate(path):
        if not node.is_object:
            raise UsageError(f"{'.'.join(path[:depth]) or 'the file'} is not an object.", hint="correct it by hand")
        member = _member(node, key)
        if member is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _checked(_insert(text, node, key, value), root, path[: depth + 1], value)
        node = member.node
    shown = _render(value, _indent(text, node.start), text)
    return _checked(text[: node.start] + shown + text[node.end :], root, path, value)


def drop(text: str, path: tuple[str, ...]) -> str:
    """The text without the member at `path`, as `put` would have found it. Raises UsageError."""
    root = parent = _parse(text)
    for key in path[:-1]:
        member = _member(parent, key)
        if member is None:
            return text
        parent = member.node
    member = _member(parent, path[-1])
    if member is None:
        return text
    begin, end = len(text[: member.start].rstrip()), member.node.end
    if member.comma >= 0:
        end = member.comma + 1
    before = parent.members[: parent.members.index(member)]
    token = before[-1].comma + 1 if before else parent.start + 1
    if "//" in text[token:begin].rpartition("\n")[2] and not re.match(r"[ \t]*\r?\n", text[end:]):
        begin = member.start  # what follows on this line must not end up in the comment
    new = text[:begin] + text[end:]
    if member.comma < 0 and before:
        comma = before[-1].comma
        new = new[:comma] + new[comma + 1 :]
    return _checked(new, root, path, None)


# --- writing


def _insert(text: str, node: Node, key: str, value: Any) -> str:
    """A new last member."""
    closing = node.end - 1
    last = len(text[:closing].rstrip())  # behind the last member, its comma and comments
    eol = line_end(text)
    if not node.members:
        base = _indent(text, node.start)
        indent = base + _unit(text)
        tail = text[last:closing] if "\n" in text[last:closing] else eol + base
        return f"{text[:last]}{eol}{indent}{json.dumps(key)}: {_render(value, indent, text)}{tail}{text[closing:]}"
    first, ending = node.members[0], node.members[-1].node.end
    own_line = "\n" in text[node.start : first.start] or "//" in text[ending:last]
    indent = _indent(text, first.start)
    shown = _render(value, indent, text) if own_line else json.dumps(value, ensure_ascii=False)
    new = f"{eol + indent if own_line else ' '}{json.dumps(key)}: {shown}" + ("," if node.comma else "")
    return text[:ending] + ("" if node.comma else ",") + text[ending:last] + new + text[last:]


def _render(value: Any, indent: str, text: str) -> str:
    shown = json.dumps(value, indent=_unit(text), ensure_ascii=False)
    return shown.replace("\n", line_end(text) + indent)


def line_end(text: str) -> str:
    """Return what ends the lines of the text."""
    return "\r\n" if "\r\n" in text else "\n"


def _indent(text: str, position: int) -> str:
    """The white space at the beginning of the line."""
    line = text[:position].rpartition("\n")[2].lstrip(_BOM)
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    """One step of indentation, as the first indented line has it."""
    found = re.search(r"\n([ \t]+)[\"}\]]", text)
    return found[1] if found and len(found[1]) <= 8 else _UNIT


def _checked(new: str, root: Node, path: tuple[str, ...], value: Any) -> str:
    """`new`, if it says what `root` says but for `value` at `path` (None: no longer there)."""
    expected = json.loads(json.dumps(root.value)) if root.is_object else {}
    inner = expected
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    if value is None:
        inner.pop(path[-1], None)
    else:
        inner[path[-1]] = value
    if _parse(new).value != expected:
        raise UsageError("its form can't be changed safely.", hint="change it by hand")
    return new


# --- reading


def _member(node: Node, key: str) -> Member | None:
    return next((member for member in reversed(node.members) if member.key == key), None)


def _parse(text: str) -> Node:
    position = _skip(text, 1 if text.startswith(_BOM) else 0)
    if position == len(text):
        return Node(position, position, None)
    node = _value(text, position, 0)
    if _skip(text, node.end) != len(text):
        _fail(text, _skip(text, node.end))
    return node


def _skip(text: str, position: int) -> int:
    found = _TRIVIA.match(text, position)
    return found.end() if found else position


def _fail(text: str, position: int) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    raise UsageError(f"line {line} is not JSON: {text[position : position + 20]!r}.", hint="correct it by hand")


def _value(text: str, position: int, depth: int) -> Node:
    if depth > _DEEPEST:
        _fail(text, position)
    if text.startswith("{", position):
        return _object(text, position, depth)
    if text.startswith("[", position):
        return _array(text, position, depth)
    found = _STRING.match(text, position) or _PLAIN.match(text, position)
    if found is None:
        _fail(text, position)
    return Node(position, found.end(), _loads(text, found))


def _loads(text: str, found: re.Match[str]) -> Any:
    try:
        return json.loads(found[0], strict=False)
    except ValueError:
        _fail(text, found.start())


def _object(text: str, start: int, depth: int) -> Node:
    members: list[Member] = []
    position = _skip(text, start + 1)
    comma = False
    while not text.startswith("}", position):
        key = _STRING.match(text, position)
        if key is None or (members and not comma):
            _fail(text, position)
        colon = _skip(text, key.end())
        if not text.startswith(":", colon):
            _fail(text, colon)
        node = _value(text, _skip(text, colon + 1), depth + 1)
        after = _skip(text, node.end)
        comma = text.startswith(",", after)
        members.append(Member(_loads(text, key), position, node, after if comma else -1))
        position = _skip(text, after + 1) if comma else after
    value = {member.key: member.node.value for member in members}
    return Node(start, position + 1, value, tuple(members), comma)


def _array(text: str, start: int, depth: int) -> Node:
    items: list[Any] = []
    position = _skip(text, start + 1)
    comma = True
    while not text.startswith("]", position):
        if not comma:
            _fail(text, position)
        node = _value(text, position, depth + 1)
        items.append(node.value)
        position = _skip(text, node.end)
        comma = text.startswith(",", position)
        position = _skip(text, position + 1) if comma else position
    return Node(start, position + 1, items)
