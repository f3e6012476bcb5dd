"""The form of mempalace's own records of a hub and of a daemon, which say who serves a palace over HTTP.

mempalace from 3.8 on looks for it before it opens a palace: `mine`, `search`, `mempalace-mcp` and its light variant
then send their calls there. So with this record they come through the broker, and nobody configures anything.

    ~/.mempalace/server/KEY/serverinfo.json    pid, host, port, ...; believed while that pid is alive
    ~/.mempalace/server/KEY/token              what they send as "Authorization: Bearer"
    ~/.mempalace/daemon/KEY/endpoint.json, pid, token    the same for jobs: of hooks, and of commands with --daemon

Both folders are one: their files have different names, except for the token, which they share.
"""

from __future__ import annotations

import hashlib
import json
import os.path
from typing import Any

from ....protocol.jsonrpc import load_object, to_bytes, whole_number

RECORD, TOKEN = "serverinfo.json", "token"
ENDPOINT, PID = "endpoint.json", "pid"
FOLDERS = {"server": RECORD, "daemon": ENDPOINT}  # below ~/.mempalace, each with its file that names a pid
ADDRESS = "127.0.0.1"
_KEY_DIGITS = 24
_MINE, _SEARCH = "mempalace_mine", "mempalace_search"
# what a client may ask of a hub that has it: (capability, tool, argument by which the tool shows that it can)
_CAPABILITIES = (
    ("mine_include_ignored", _MINE, "include_ignored"),
    ("mine_include_subagents", _MINE, "include_subagents"),
    ("search_cli_compatible", _SEARCH, "cli_compatible"),
)


def key_of(palace: str) -> str:
    """The name of the palace's folder. `palace`: its real path."""
    return hashlib.sha256(os.path.normcase(palace).encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_DIGITS]


def is_hub(tools: list[Any] | None) -> bool:
    """Whether an engine with these tools can do what mempalace's clients ask of a hub: 3.4.0 could not mine."""
    return _MINE in _arguments(tools or [])


def encode(*, palace: str, pid: int, port: int, tools: list[Any], fingerprint: str | None) -> bytes:
    """The record's bytes.

    Args:
        palace: its real path. tools: the engine's. fingerprint: of the engine's search configuration, None if unknown;
            clients search by themselves then, as with one that is not theirs.
    """
    known = _arguments(tools)
    record = {
        "pid": pid,
        "host": ADDRESS,
        "port": port,
        "scheme": "http",
        "read_only": False,
        "capabilities": [name for name, tool, argument in _CAPABILITIES if argument in known.get(tool, ())],
        "search_config_fingerprint": fingerprint,
        "palace_path": palace,
    }
    return json.dumps(record).encode() + b"\n"


def endpoint(*, palace: str, pid: int, port: int) -> bytes:
    """Return the bytes of a daemon's record; arguments as in `encode`."""
    return json.dumps({"host": ADDRESS, "port": port, "pid": pid, "palace_path": palace}).encode() + b"\n"


def mended(line: bytes) -> bytes:
    """A call as its sender meant it: `mine` of 3.8 to 3.10 sends its default mode as null, which no engine takes."""
    if b'"mempalace_mine"' not in line:
        return line
    body = load_object(line)
    params = body.get("params")
    arguments = params.get("arguments") if isinstance(params, dict) and params.get("name") == _MINE else None
    if not isinstance(arguments, dict) or arguments.get("mode", "") is not None:
        return line
    del arguments["mode"]
    return to_bytes(body)


def pid_in(record: bytes | None) -> int:
    """The pid in a record that anybody may have written, 0 where there is none."""
    return whole_number(load_object(record).get("pid"), 1, 1 << 31) or 0


def _arguments(tools: list[Any]) -> dict[str, set[str]]:
    """The names of the arguments of each tool."""
    out: dict[str, set[str]] = {}
    for tool in tools:
        schema = tool.get("inputSchema") if isinstance(tool, dict) else None
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if isinstance(tool, dict) and isinstance(properties, dict):
            out[str(tool.get("name"))] = set(properties)
    return out
