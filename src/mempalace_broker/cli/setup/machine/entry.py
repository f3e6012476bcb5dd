"""The entry of an MCP server in an agent's configuration: what it runs, and what it should run instead. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, NamedTuple

from ....errors import UsageError

NAME = "mempalace"  # rules and hooks refer to the tools by this name
SHIM = "mp-shim"
_RUNNERS = ("uvx", "uv", "pipx", "env")  # what may stand before mempalace-mcp and run it on this machine
_SERVER = "mempalace-mcp"
_MODULE = "mempalace.mcp_server"


class Shape(StrEnum):
    """How an entry is written."""

    COMMAND = "command"  # {"command": "p", "args": ["a"]}
    LIST = "list"  # {"command": ["p", "a"]}


class Server(NamedTuple):
    """What an entry runs. `ours`: mp-shim, else mempalace's own server. `args`: behind the program."""

    ours: bool
    args: list[str]


def words_of(entry: Any, shape: Shape) -> list[str]:
    """The command line of an entry. Raises UsageError where it has none, as one that names a URL."""
    command = entry.get("command") if isinstance(entry, dict) else None
    args = entry.get("args", []) if isinstance(entry, dict) else None
    words = command if shape is Shape.LIST else [command, *args] if isinstance(args, list) else None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise UsageError(
            f"its server {NAME} runs no command (it may name a URL).", hint=f"remove it, or name it other than {NAME}"
        )
    return words


def recognise(words: list[str]) -> Server | None:
    """Which server that command line runs; None where it is another, or one on another machine."""
    program = _base(words[0])
    if program == SHIM:
        return Server(True, words[1:])
    if re.fullmatch(r"(python|pypy)[\d.]*[a-z]?", program) and _MODULE in words and "-m" in words:
        return Server(False, words[words.index(_MODULE) + 1 :])
    names = [_base(word) for word in words]
    if _SERVER in names and (program == _SERVER or program in _RUNNERS):
        return Server(False, words[names.index(_SERVER) + 1 :])
    return None


def _base(word: str) -> str:
    return word.rpartition("/")[2]


def changes(entry: dict[str, Any], shape: Shape, words: list[str]) -> dict[str, Any]:
    """Which fields of an entry must change, so that it runs `words`."""
    if shape is Shape.LIST:
        return {} if entry["command"] == words else {"command": words}
    command, *args = words
    found: dict[str, Any] = {} if entry["command"] == command else {"command": command}
    return found if entry.get("args", []) == args else {**found, "args": args}
