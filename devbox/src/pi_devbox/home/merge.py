"""Merge one file of a home with that of a new image. Pure.

Three texts meet: what the last image brought, what the home has, what this image brings. Whatever only one side changed
is taken from it; where both did, the user's stays. JSON objects are merged key by key, in all depths, and lists of
packages item by item. Any other value, and any other file, is one piece.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_COMMENTED = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)
_ABSENT: Any = object()
_SETS = frozenset({"packages", "extensions", "skills", "prompts", "themes"})  # lists whose order means nothing to pi


class Merged(NamedTuple):
    """The file's new text, None to leave it alone; `note` for the user, or ""; `settled`: nothing is left to do."""

    text: str | None
    note: str = ""
    settled: bool = True


def merge_file(name: str, brought: str | None, own: str | None, new: str) -> Merged:
    """Merge one file. `brought` is None if that is unknown, `own` if the home has no such file."""
    if own is None:
        return Merged(new) if brought is None else Merged(None)  # the user has removed it
    if new in (own, brought):
        return Merged(None)
    if own == brought:
        return Merged(new)
    if name.endswith(".json"):
        return _merge_json(brought, own, new)
    return Merged(None, "differs from what the image brings: yours is kept")


def _merge_json(brought: str | None, own: str, new: str) -> Merged:
    after = json.loads(new)
    try:
        before = json.loads(brought or "{}")
    except (ValueError, RecursionError):  # somebody has edited the manifest
        before = {}
    try:
        own.encode()
        there = json.loads(own)
        result = merge(before, there, after)
        text = json.dumps(result, indent=2, ensure_ascii=own.isascii(), allow_nan=False) + "\n"
        return Merged(None if _same(result, there) else text)
    except (ValueError, RecursionError) as exc:
        if _has_all(before, own, after):
            return Merged(None)
        return Merged(None, f"is not plain JSON, so what it lacks is not added ({exc})", settled=False)


def _has_all(before: Any, own: str, after: Any) -> bool:
    """Whether a file with comments and trailing commas, as some agents allow them, lacks nothing."""
    try:
        there = json.loads(_COMMENTED.sub(lambda match: match[1] or "", own))
        return _same(merge(before, there, after), there)
    except (ValueError, RecursionError):
        return False


def merge(brought: Any, own: Any, new: Any, key: str = "") -> Any:
    """Merge three JSON values; `key` is their name in the object around them."""
    if _same(own, new) or _same(new, brought):
        return own
    if _same(own, brought):
        return new
    if isinstance(own, dict) and isinstance(new, dict):
        before: Any = brought if isinstance(brought, dict) else {}
        names = [*own, *(name for name in new if name not in own)]
        merged = {
            name: merge(before.get(name, _ABSENT), own.get(name, _ABSENT), new.get(name, _ABSENT), name)
            for name in names
        }
        return {name: value for name, value in merged.items() if value is not _ABSENT}
    if isinstance(own, list) and isinstance(new, list) and key in _SETS:
        before = brought if isinstance(brought, list) else []
        kept = [item for item in own if item in new or item not in before]
        return kept + [item for item in new if item not in own and item not in before]
    return own


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON values: Python takes true for 1."""
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
