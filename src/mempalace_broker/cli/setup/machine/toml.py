"""As jsonc.py, for TOML; tomlkit keeps comments, order and white space. Pure."""

from __future__ import annotations

import tomllib
from typing import Any

from ....errors import UsageError


def get(text: str, path: tuple[str, ...]) -> Any:
    """The value at `path`, None where there is none. Raises UsageError where the text is not TOML."""
    try:
        value: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"it is not TOML: {exc}.", hint="correct it by hand") from exc
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def put(text: str, path: tuple[str, ...], value: Any) -> str:
    """The text with `value` at `path`, a new table at its end. Raises UsageError."""
    import tomlkit

    if isinstance(value, dict) and get(text, path) is None:
        table: Any = value
        for key in reversed(path):
            table = {key: table}
        gap = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
        return _checked(text + gap + tomlkit.dumps(table), text, path, value)
    document = tomlkit.parse(text)
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return _checked(document.as_string(), text, path, value)


def drop(text: str, path: tuple[str, ...]) -> str:
    """The text without the value at `path`. Raises UsageError."""
    import tomlkit

    if get(text, path) is None:
        return text
    document = tomlkit.parse(text)
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return _checked(document.as_string(), text, path, None)


def _checked(new: str, text: str, path: tuple[str, ...], value: Any) -> str:
    """`new`, if it says what `text` says but for `value` at `path` (None: no longer there)."""
    expected = tomllib.loads(text)
    inner = expected
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{key} is not a table.", hint="correct it by hand")
    if value is None:
        inner.pop(path[-1])
    else:
        inner[path[-1]] = value
    try:
        said = tomllib.loads(new)
    except tomllib.TOMLDecodeError:  # the table is an inline one, which can't have more
        said = {}
    if _without_empty(said) != _without_empty(expected):
        raise UsageError("its form can't be changed safely.", hint="change it by hand")
    return new


def _without_empty(value: Any) -> Any:
    """A table that only holds other tables is there or not as TOML likes it."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, old in value.items() if (inner := _without_empty(old)) != {}}
