"""Jobs: what mempalace's hooks and its commands with `--daemon` ask of mempalace's own daemon (3.5 and newer).

    {"method": "broker/job", "params": {"kind": "mine", "name": "mempalace_mine", "arguments": {...}}}

`arguments` is the payload of the job. `name` is the tool whose rule holds for it: the tool itself where a tool does the
same, so that its call is an ordinary `tools/call`; else the nearest one, and the engine runs mempalace's own code for
jobs. The engine's interpreter runs this module too (Python 3.9).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOB = "broker/job"
DIARY, TOOL = "diary_write", "mcp_tool"
_NEAREST = {"mine": "mempalace_mine", "sweep": "mempalace_mine", "sync": "mempalace_sync"}
KINDS = (*_NEAREST, DIARY, TOOL)
_DIARY_WORDS = ("agent_name", "entry", "topic", "wing")


def nearest_tool(kind: object) -> str | None:
    """The tool whose rule holds for a job that mempalace's own code for jobs runs; None for any other."""
    return _NEAREST.get(kind) if isinstance(kind, str) else None


def is_long(kind: str) -> bool:
    """Whether jobs of this kind may run for hours; all of them do no harm twice."""
    return kind in _NEAREST


def request(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """The request for a job, whose id is 2: it follows a hello."""
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
