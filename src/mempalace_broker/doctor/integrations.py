"""Integrations that open the palace in a process of their own: no agent's MCP configuration leads them to the broker.

They are known by the program that runs, and by their configuration files. Those are only searched for a word: they are
the user's, of formats of their own, and may hold secrets.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ..system.shared_files import read_followed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .open_files import OpenFile

_MOST_READ = 1 << 20
_PUT_SHIM = "put mp-shim where its agent's config says mempalace-mcp"


class Integration(NamedTuple):
    """One that is set up: its name, in which file, what it does to the palace, and what helps."""

    name: str
    path: str
    what: str
    hint: str


class _Known(NamedTuple):
    """`files` below the home or the configuration folder, one of which holds `word`; `programs` that it runs."""

    name: str
    files: tuple[str, ...]
    word: bytes
    programs: tuple[str, ...]
    what: str
    hint: str


_KNOWN = (
    _Known(
        "the plugin opencode-mempalace",
        ("$CONFIG/opencode/opencode.json", "$CONFIG/opencode/opencode.jsonc", "$CONFIG/opencode/config.json"),
        b"opencode-mempalace",
        ("mempalace_adapter.py",),
        "it imports mempalace and opens the palace at each of its calls",
        "remove the plugin there, and give opencode the MCP server mp-shim",
    ),
    _Known(
        "the memory provider of Hermes",
        ("~/.hermes/mempalace.json", "~/.hermes/config.yaml"),
        b"mempalace",
        ("hermes", "hermes-agent", "hermes-gateway"),
        "it keeps the palace open for as long as Hermes runs",
        "choose another memory.provider in ~/.hermes/config.yaml, and give Hermes the MCP server mp-shim",
    ),
)


def find_integrations(home: str, env: Mapping[str, str]) -> list[Integration]:
    """Those whose configuration names mempalace, each once."""
    config = env.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    found = []
    for known in _KNOWN:
        paths = [path.replace("~", home, 1).replace("$CONFIG", config, 1) for path in known.files]
        named = [path for path in paths if _holds(path, known.word)]
        found += [Integration(known.name, path, known.what, known.hint) for path in named[:1]]
    return found


def about(opener: OpenFile) -> tuple[str, str]:
    """What a process that has the palace open is, as far as that is known, and what to do about it."""
    names = {opener.command, *(name for _, name in opener.parents)}
    for known in _KNOWN:
        if names.intersection(known.programs):
            return f"{known.name}; {known.what}", known.hint
    if opener.command == "mempalace":
        return "one of mempalace's own commands", "let it finish, and run the next by `mempalace-broker exclusive`"
    return "", _PUT_SHIM


def _holds(path: str, word: bytes) -> bool:
    try:
        return word in read_followed(path, _MOST_READ)
    except OSError:
        return False
