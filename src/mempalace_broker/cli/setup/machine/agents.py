"""The agents that `setup` knows, a row each: where their configuration is and how an entry looks in it. Pure.

A path begins below the home; `{config}` is ~/.config (or $XDG_CONFIG_HOME), `{support}` where the system's apps keep
their settings. The first file that exists is taken, else the first one named, provided that its folder exists or the
program is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .entry import NAME, Shape

Entry = Callable[[list[str]], dict[str, Any]]


class Place(NamedTuple):
    """The path of keys to the entry, and a new entry there for a command line."""

    path: tuple[str, ...]
    new: Entry


class Agent(NamedTuple):
    """One agent.

    Attributes:
        key: for --only. name: for people. files: see above. form: json, toml, or yaml (a list of servers with names).
        places: one, or a second for its next generation, whose --version begins with `second`.
        program: its command, "" for an app. add: what that takes to add a server, before the command line.
        home_variable: moves the folder of its first file.
    """

    key: str
    name: str
    files: tuple[str, ...]
    places: tuple[Place, ...]
    form: str = "json"
    shape: Shape = Shape.COMMAND
    program: str = ""
    add: tuple[str, ...] = ()
    home_variable: str = ""
    second: str = ""


def _plain(words: list[str]) -> dict[str, Any]:
    return {"command": words[0], "args": words[1:]}


def _stdio(words: list[str]) -> dict[str, Any]:
    return {"type": "stdio", **_plain(words)}


def _copilot(words: list[str]) -> dict[str, Any]:
    return {"type": "local", **_plain(words), "tools": ["*"]}


def _codex(words: list[str]) -> dict[str, Any]:
    return {**_plain(words), "tool_timeout_sec": 120}


def _opencode(words: list[str]) -> dict[str, Any]:
    return {"type": "local", "command": words, "enabled": True}


def _opencode_2(words: list[str]) -> dict[str, Any]:
    return {"type": "local", "command": words}


def _continue(words: list[str]) -> dict[str, Any]:
    return {"name": NAME, **_plain(words)}


def _pi(words: list[str]) -> dict[str, Any]:
    return {**_plain(words), "lifecycle": "lazy-keep-alive"}


def _servers(new: Entry = _plain, key: str = "mcpServers") -> tuple[Place, ...]:
    return (Place((key, NAME), new),)


# Not an agent: mempalace's own config.json, in which hooks.py changes one value; `find_hooks` finds it.
HOOKS = Agent("hooks", "mempalace's hooks", (), ())

_CLINE = "User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
AGENTS = (
    Agent(
        "claude",
        "Claude Code",
        (".claude.json",),
        _servers(_stdio),
        program="claude",
        add=("mcp", "add", "--scope", "user", NAME, "--"),
        home_variable="CLAUDE_CONFIG_DIR",
    ),
    Agent(
        "codex",
        "Codex",
        (".codex/config.toml",),
        _servers(_codex, "mcp_servers"),
        "toml",
        program="codex",
        add=("mcp", "add", NAME, "--"),
        home_variable="CODEX_HOME",
    ),
    Agent("cursor", "Cursor", (".cursor/mcp.json",), _servers()),
    Agent("vscode", "VS Code", ("{support}/Code/User/mcp.json",), _servers(_stdio, "servers")),
    Agent("claude-desktop", "Claude Desktop", ("{support}/Claude/claude_desktop_config.json",), _servers()),
    Agent("gemini", "Gemini CLI", (".gemini/settings.json",), _servers(), program="gemini"),
    Agent("qwen", "Qwen Code", (".qwen/settings.json",), _servers(), program="qwen"),
    Agent(
        "opencode",
        "opencode",
        ("{config}/opencode/opencode.json", "{config}/opencode/opencode.jsonc"),
        (Place(("mcp", NAME), _opencode), Place(("mcp", "servers", NAME), _opencode_2)),
        shape=Shape.LIST,
        program="opencode",
        second="2.",
    ),
    Agent("pi", "pi (with pi-mcp-adapter)", (".pi/agent/mcp.json",), _servers(_pi)),
    Agent("cline", "Cline CLI", (".cline/data/settings/cline_mcp_settings.json",), _servers(), program="cline"),
    Agent("cline-vscode", "Cline in VS Code", (f"{{support}}/Code/{_CLINE}",), _servers()),
    Agent("continue", "Continue", (".continue/config.yaml",), _servers(_continue), "yaml"),
    Agent("copilot", "Copilot CLI", (".copilot/mcp-config.json",), _servers(_copilot), program="copilot"),
    Agent("kiro", "Kiro", (".kiro/settings/mcp.json",), _servers()),
    Agent("lmstudio", "LM Studio", (".lmstudio/mcp.json",), _servers()),
)
