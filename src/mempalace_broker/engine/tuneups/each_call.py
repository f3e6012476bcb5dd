"""Tune-ups for what mempalace does around every call: it asks for a tool's signature, and writes the answer as JSON."""

from __future__ import annotations

import inspect
import json
import math
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Callable

from .tuneup import TuneUp, require

if TYPE_CHECKING:
    from ..adapter import Mempalace

# -- the answer as JSON --------------------------------------------------------------------------------

_STYLE = {"indent": 2, "ensure_ascii": False}  # how mempalace writes every answer
_DEEPEST = 40  # columns of indent; Python limits the depth itself, and what goes deeper is left to it
_CONSTANTS = {None: "null", True: "true", False: "false"}
_quoted: Callable[[str], str] = json.encoder.encode_basestring
_SAMPLE: Any = {
    "": [],
    'a "quoted"\n\u2028 näme \ud800': {"ints": [0, -7, 10**30], "floats": [0.1, -0.0, 1e22, 5e-324, 3.0]},
    "nested": [[[{}, None, True, False, "\x00\x7f\\/"]], ({"one": ("two",)},)],
}


class _NotPlain(Exception):
    """The value holds something that is left to Python's own encoder."""


def indented(value: Any) -> str:
    """Return what `json.dumps(value, indent=2, ensure_ascii=False)` returns, or raise what it raises.

    Python's C encoder can't indent, so `json` has a generator for each list and dict hand on every piece.
    """
    try:
        return _text(value, "\n")
    except _NotPlain:
        return json.dumps(value, indent=2, ensure_ascii=False)


def _text(value: Any, line: str) -> str:
    """The text of a value of plain JSON types. `line`: the line break and indent of the value's last line."""
    kind = type(value)
    if kind is dict:
        if not value:
            return "{}"
        inner = _deeper(line)
        members = []
        for key, item in value.items():
            if type(key) is not str:
                raise _NotPlain
            members.append(_quoted(key) + ": " + (_quoted(item) if type(item) is str else _text(item, inner)))
        return "{" + inner + ("," + inner).join(members) + line + "}"
    if kind is list or kind is tuple:
        if not value:
            return "[]"
        inner = _deeper(line)
        items = [_quoted(item) if type(item) is str else _text(item, inner) for item in value]
        return "[" + inner + ("," + inner).join(items) + line + "]"
    if value is None or kind is bool:
        return _CONSTANTS[value]
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if kind is str:
        return _quoted(value)
    raise _NotPlain


def _deeper(line: str) -> str:
    if len(line) > _DEEPEST:
        raise _NotPlain
    return line + "  "


def _apply_quick_json(mempalace: Mempalace) -> None:
    server = mempalace.server
    require(getattr(server, "json", None) is json, "the server writes its answers in another way")
    require(_text(_SAMPLE, "\n") == json.dumps(_SAMPLE, indent=2, ensure_ascii=False), "this Python writes other JSON")

    def dumps(value: Any, **style: Any) -> str:
        return indented(value) if style == _STYLE else json.dumps(value, **style)

    server.json = SimpleNamespace(**{**vars(json), "dumps": dumps})


# -- the signature of a tool ---------------------------------------------------------------------------


def _apply_kept_signatures(mempalace: Mempalace) -> None:
    tools: Any = getattr(mempalace.server, "TOOLS", None)
    require(isinstance(tools, dict), "the server has no list of its tools")
    handlers = [tool.get("handler") for tool in tools.values()]
    require(all(isinstance(one, FunctionType) for one in handlers), "a tool is something else than a function")
    for handler in handlers:
        handler.__signature__ = inspect.signature(handler)  # where `inspect` looks first


QUICK_JSON = TuneUp(
    "quick-json",
    "answers are written as JSON in fewer steps",
    "upstream has them indented, which takes Python two to three times as long",
    _apply_quick_json,
    any_backend=True,
)
KEPT_SIGNATURES = TuneUp(
    "kept-signatures",
    "the signatures of the tools are made once",
    "upstream has Python make one on every call",
    _apply_kept_signatures,
    any_backend=True,
)
