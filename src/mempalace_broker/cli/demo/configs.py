"""The exact lines for an agent's configuration."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def agent_configs(command: Sequence[str]) -> dict[str, str]:
    """Agent -> what to run or write. The server's name stays `mempalace`: rules and hooks refer to it."""
    shell = shlex.join(command)
    entry: dict[str, object] = {"command": command[0], "args": list(command[1:])}
    opencode = {"mcp": {"mempalace": {"type": "local", "command": list(command), "enabled": True, "timeout": 30000}}}
    arguments = f"\nargs = {json.dumps(list(command[1:]))}" if len(command) > 1 else ""
    codex = f"[mcp_servers.mempalace]\ncommand = {json.dumps(command[0])}{arguments}\ntool_timeout_sec = 120"
    return {
        "Claude Code": f"claude mcp add --scope user mempalace -- {shell}",
        "Codex (~/.codex/config.toml)": codex,
        "opencode (opencode.json)": json.dumps(opencode),
        "others (mcpServers)": json.dumps({"mcpServers": {"mempalace": entry}}),
    }
