"""Jobs: requests of mempalace's hooks and its commands with `--daemon` to mempalace's own daemon (3.5 and newer).

    {"method": "broker/job", "params": {"kind": "mine", "name": "mempalace_mine", "arguments": {...}}}

`arguments` is the payload of the job. `name` is the tool whose rule applies to it. If a tool does the same as the job,
the job becomes an ordinary `tools/call` of that tool; otherwise `name` is the nearest tool, and the engine runs
mempalace's own code for jobs. The engine's interpreter runs this module, too (Python 3.9).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOB = "broker/job"
DIARY, TOOL = "diary_write", "mcp_tool"
_NEAREST = {"mine": "mempalace_mine", "sweep": "mempalace_mine", "sync": "mempalace_sync"}
KINDS = (*_NEAREST, DIARY, TOOL)
_AGAIN = ("mempalace_add_drawer", "mempalace_create_tunnel")  # what they store has an id from its own content
_DIARY_WORDS = ("agent_name", "entry", "topic", "wing")


def nearest_tool(kind: object) -> str | None:
    """Return the tool whose rule applies to a job that mempalace's own code runs; None for any other kind."""
    return _NEAREST.get(kind) if isinstance(kind, str) else None


def is_long(kind: str) -> bool:
    """Return whether jobs of this kind may run for hours; all of these are idempotent."""
    return kind in _NEAREST


def may_run_twice(kind: str, tool: object) -> bool:
    """Return whether a second run stores nothing more, even if others have written between the two.

    That is less than a tool's replay rule asks, which holds only while nothing else runs between.
    """
    return is_long(kind) or tool in _AGAIN


def request(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the request for a job; its id is 2, because it follows a hello."""
    nearest = nearest_tool(kind)
    if nearest is not None:
        arguments = dict(payload)
        if kind == "sync":
            arguments["apply"] = not payload.get("dry_run", True)  # in the words of the tool, for its rule
        params: dict[str, Any] = {"kind": kind, "name": nearest, "arguments": arguments}
        return {"jsonrpc": "2.0", "id": 2, "method": JOB, "params": params}
    if kind == DIARY:
        said = {word: payload[word] for word in _DIARY_WORDS if payload.get(word)}
        call: dict[str, Any] = {
            "name": "mempalace_diary_write",
            "arguments": {"agent_name": "mempalace", "entry": "", **said},
        }
    else:
        call = {"name": payload.get("name"), "arguments": payload.get("arguments") or {}}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
