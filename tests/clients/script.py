"""One script of tool calls, for any client and any server, and what must be equal in its answers.

A palace that does not exist yet is read first; then every tool is called with good arguments, in an order that gives
each something to work on, then with bad ones. "$step.key" in an argument stands for that value of an earlier answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Arguments: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]  # {"text": ..., "is_error": ...} or {"code": ..., "message": ...}
Caller: TypeAlias = Callable[[str, Arguments], Answer]
Step: TypeAlias = tuple[str, str, Arguments]  # (label, tool without its prefix, arguments)

DATA = Path(__file__).parents[1] / "data"
DUCK = "The duck swims in the pond behind the mill. It likes bread, and it fears the otter."
OTTER = "Otters hold hands while they sleep, so that the current does not part them."
LONG = " ".join(f"Sentence {n} of a long text about lighthouses, keepers and fog horns." for n in range(60))

FRESH: list[tuple[str, Arguments]] = [
    ("status", {}),
    ("list_wings", {}),
    ("list_rooms", {}),
    ("get_taxonomy", {}),
    ("search", {"query": "anything"}),
    ("search", {"query": "anything", "cli_compatible": True}),
    ("list_drawers", {}),
    ("get_drawer", {"drawer_id": "none"}),
    ("check_duplicate", {"content": DUCK}),
    ("diary_read", {"agent_name": "ada"}),
    ("kg_stats", {}),
    ("kg_query", {"entity": "nobody"}),
    ("kg_timeline", {}),
    ("graph_stats", {}),
    ("traverse", {"start_room": "pond"}),
    ("find_tunnels", {}),
    ("list_tunnels", {}),
    ("list_hallways", {}),
    ("event_list", {}),
    ("memories_filed_away", {}),
    ("reconnect", {}),
    ("delete_drawer", {"drawer_id": "none"}),
]

GOOD: list[tuple[str, str, Arguments]] = [
    ("duck", "add_drawer", {"wing": "zoo", "room": "pond", "content": DUCK, "source_file": "duck.txt"}),
    ("otter", "add_drawer", {"wing": "zoo", "room": "river", "content": OTTER, "added_by": "ada"}),
    ("long", "add_drawer", {"wing": "sea", "room": "pond", "content": LONG, "source_file": "long.txt"}),
    ("", "add_drawer", {"wing": "zoo", "room": "pond", "content": DUCK, "source_file": "duck.txt"}),
    ("", "add_drawer", {"wing": "zoo", "room": "pond", "content": 'Grüße, 世界 🦆 — "quoted"\n\ttab'}),
    ("", "status", {}),
    ("", "list_wings", {}),
    ("", "list_rooms", {}),
    ("", "list_rooms", {"wing": "zoo"}),
    ("", "get_taxonomy", {}),
    ("", "get_aaak_spec", {}),
    ("", "search", {"query": "sleeping animals"}),
    ("", "search", {"query": "fog", "limit": 2, "wing": "sea"}),
    ("", "search", {"query": "bread", "room": "pond", "max_distance": 0.9}),
    ("", "search", {"query": "bread", "candidate_strategy": "union", "context": "feeding ducks"}),
    ("", "search", {"query": "bread", "cli_compatible": True}),
    ("", "search", {"query": "duck", "source_file": "duck.txt"}),
    ("", "search", {"query": "duck", "since": "2000-01-01", "before": "2100-01-01"}),
    ("", "check_duplicate", {"content": DUCK}),
    ("", "check_duplicate", {"content": "Something about tax law.", "threshold": 0.95}),
    ("", "get_drawer", {"drawer_id": "$duck.drawer_id"}),
    ("", "get_drawers", {"drawer_ids": ["$duck.drawer_id", "none", "$otter.drawer_id"]}),
    ("", "list_drawers", {}),
    ("", "list_drawers", {"wing": "zoo", "limit": 1, "offset": 1}),
    ("", "update_drawer", {"drawer_id": "$otter.drawer_id", "content": OTTER + " Really.", "room": "pond"}),
    ("", "update_drawer", {"drawer_id": "$duck.drawer_id", "wing": "park"}),
    ("", "get_drawer", {"drawer_id": "$otter.drawer_id"}),
    ("", "diary_write", {"agent_name": "ada", "entry": "SESSION:met.a.duck", "topic": "animals"}),
    ("", "diary_write", {"agent_name": "ada", "content": "The other spelling.", "wing": "zoo"}),
    ("", "diary_read", {"agent_name": "ada"}),
    ("", "diary_read", {"agent_name": "ada", "last_n": 1, "wing": "zoo"}),
    ("", "kg_add", {"subject": "Max", "predicate": "likes", "object": "chess", "valid_from": "2026-01-01"}),
    ("", "kg_add", {"subject": "Max", "predicate": "likes", "object": "chess"}),
    ("", "kg_add", {"subject": "Max", "predicate": "works_at", "object": "mill", "source_closet": "c"}),
    ("", "kg_query", {"entity": "Max"}),
    ("", "kg_query", {"entity": "Max", "as_of": "2025-01-01", "direction": "outgoing"}),
    (  # with a time: a fact that ends in this very second still counts as current, but only on a fast server
        "",
        "kg_supersede",
        {"subject": "Max", "predicate": "works_at", "old_object": "mill", "new_object": "lab", "at": "2026-03-01"},
    ),
    ("", "kg_invalidate", {"subject": "Max", "predicate": "likes", "object": "chess", "ended": "2026-02-01"}),
    ("", "kg_timeline", {}),
    ("", "kg_timeline", {"entity": "Max", "limit": 1, "offset": 1}),
    ("", "kg_stats", {}),
    (
        "tunnel",
        "create_tunnel",
        {"source_wing": "zoo", "source_room": "pond", "target_wing": "sea", "target_room": "pond", "label": "water"},
    ),
    ("", "list_tunnels", {}),
    ("", "list_tunnels", {"wing": "zoo"}),
    ("", "follow_tunnels", {"wing": "zoo", "room": "pond"}),
    ("", "find_tunnels", {}),
    ("", "find_tunnels", {"wing_a": "zoo", "wing_b": "sea"}),
    ("", "traverse", {"start_room": "pond"}),
    ("", "traverse", {"start_room": "pond", "max_hops": 1}),
    ("", "graph_stats", {}),
    ("", "delete_tunnel", {"tunnel_id": "$tunnel.id"}),
    ("", "list_hallways", {}),
    ("", "list_hallways", {"wing": "zoo", "limit": 1, "offset": 0}),
    ("", "delete_hallway", {"hallway_id": "none"}),
    ("", "mesh_peers", {}),
    ("", "mine", {"source": "docs", "wing": "mined", "dry_run": True}),
    ("", "mine", {"source": "docs", "wing": "mined", "mode": "projects", "agent": "ada", "limit": 5}),
    ("", "search", {"query": "how to build the boat", "wing": "mined"}),
    (
        "",
        "checkpoint",
        {"items": [{"wing": "zoo", "room": "cp", "content": OTTER}], "diary": {"agent_name": "ada", "entry": "cp"}},
    ),
    ("event", "event_append", {"type": "note", "stream": "s", "room": "r", "from_agent": "ada", "body": "hello"}),
    (
        "task",
        "task_create",
        {
            "project": "p",
            "from_agent": "ada",
            "to_agent": "bob",
            "goal": "build",
            "branch": "main",
            "base_commit": "abc1234",
            "done": "tests pass",
        },
    ),
    ("", "event_ack", {"event_id": "$event.id", "from_agent": "bob", "body": "seen"}),
    ("", "event_list", {}),
    ("", "event_list", {"stream": "s", "limit": 1, "order": "asc", "preview": True}),
    ("", "event_wait", {"stream": "s", "timeout_ms": 50}),
    ("", "event_wait", {"stream": "nobody", "timeout_ms": 50}),
    ("art", "artifact_put", {"kind": "log", "content": "lines of a log", "created_by": "ada", "metadata": {"k": 1}}),
    ("", "artifact_get", {"artifact_id": "$art.id"}),
    ("", "patch_submit", {"content": "--- a\n+++ b\n", "from_agent": "ada", "stream": "s", "branch": "b"}),
    ("", "hook_settings", {}),
    ("", "hook_settings", {"silent_save": True, "desktop_toast": False}),
    ("", "memories_filed_away", {}),
    ("", "reconnect", {}),
    ("", "status", {}),
]

# Last, because 3.4.0 loses its search index at the first delete; the broker prevents that (upstream #1710).
DELETING: list[tuple[str, str, Arguments]] = [
    ("", "sync", {"project_dir": "docs"}),
    ("", "delete_by_source", {"source_file": "long.txt"}),
    ("", "delete_by_source", {"source_file": "long.txt", "dry_run": False}),
    ("", "delete_drawers", {"drawer_ids": ["$otter.drawer_id", "none"]}),
    ("", "delete_drawer", {"drawer_id": "$duck.drawer_id"}),
    ("", "delete_drawer", {"drawer_id": "$duck.drawer_id"}),
]
WRONG = {"string": {"a": [1]}, "integer": "many", "number": "many", "boolean": "maybe", "array": 7, "object": 7}


def snapshot(version: str) -> dict[str, Any]:
    """Input schemas of that mempalace by tool name without prefix."""
    tools = json.loads((DATA / f"tools-{version}.json").read_text(encoding="utf-8"))
    return {tool["name"].removeprefix("mempalace_"): tool["inputSchema"] for tool in tools}


def steps(version: str, *, every_property: bool = True) -> list[Step]:
    """The script for that version of mempalace.

    Args:
        every_property: with each argument of each tool wrong in turn; else only with required ones missing.
    """
    schemas = snapshot(version)
    script = [(f"fresh {tool}", tool, args) for tool, args in FRESH if tool in schemas]
    script += [(label or f"good {tool}", tool, args) for label, tool, args in GOOD if tool in schemas]
    deleting = {tool for _, tool, _ in DELETING}
    for tool, schema in schemas.items():
        if tool not in deleting:
            script += _bad(tool, schema, every_property)
    script += [("bad: no such tool", "no_such_tool", {}), ("afterwards", "search", {"query": "otters"})]
    script += [(f"good {tool}", tool, args) for _, tool, args in DELETING if tool in schemas]
    for tool in sorted(deleting & schemas.keys()):
        script += _bad(tool, schemas[tool], every_property)
    script += [("finally", "list_drawers", {})]
    if version != "3.4.0":
        script += [("finally", "search", {"query": "otters"})]
    return script


def _bad(tool: str, schema: Any, every_property: bool) -> Iterable[Step]:
    good = next(args for _, name, args in [*GOOD, *DELETING, *(("", *fresh) for fresh in FRESH)] if name == tool)
    yield f"bad {tool}: unknown argument", tool, {**good, "bogus": 1}
    for name in schema.get("required", ()):
        yield f"bad {tool}: no {name}", tool, {key: value for key, value in good.items() if key != name}
    if not every_property:
        return
    for name, kind in schema.get("properties", {}).items():
        if (tool, name) == ("event_wait", "timeout_ms"):
            continue  # it would wait for a minute
        yield f"bad {tool}: wrong {name}", tool, {**good, name: WRONG[kind["type"]]}
        yield f"bad {tool}: null {name}", tool, {**good, name: None}
        if kind["type"] == "integer":
            yield f"bad {tool}: negative {name}", tool, {**good, name: -3}
            yield f"bad {tool}: huge {name}", tool, {**good, name: 10**12}


def play(call: Caller, script: Sequence[Step]) -> list[tuple[str, Answer]]:
    """Make all calls of the script one after the other; (label, answer) for each."""
    said: dict[str, Any] = {}
    out = []
    for label, tool, arguments in script:
        answer = call(f"mempalace_{tool}", _resolve(arguments, said))
        if "text" in answer and label not in said:
            said[label] = _parsed(answer["text"])
        out.append((f"{label} ({tool})", answer))
    return out


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _resolve(value: Any, said: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(item, said) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, said) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        label, _, key = value[1:].partition(".")
        found = said[label]
        nested = [inner[key] for inner in found.values() if isinstance(inner, dict) and key in inner]
        assert key in found or nested, f"no {key} in the answer to {label}: {found}"
        return found[key] if key in found else nested[0]
    return value


def from_rpc(answer: dict[str, Any]) -> Answer:
    """A JSON-RPC answer to tools/call as an `Answer`."""
    if "error" in answer:
        return {"code": answer["error"]["code"], "message": answer["error"]["message"]}
    return from_result(answer["result"])


def from_result(result: dict[str, Any]) -> Answer:
    """The result of tools/call, as a client hands it out."""
    [content] = result["content"]
    assert content["type"] == "text"
    return {"text": content["text"], "is_error": bool(result.get("isError", False))}


_NOISE = (
    (re.compile(r"MCP error (-\d+): "), ""),  # the TypeScript SDK prepends it
    (re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"20\d{6}[T_]\d{6,12}(_[0-9a-f]{6,16}\b)?"), "<stamp>"),
    (re.compile(r'"source_mtime": \d+\.\d+'), '"source_mtime": <time>'),
    (re.compile(r"\b\d{13}-\d{6}-rep_"), "<clock>-rep_"),
    (re.compile(r"\brep_[0-9a-f]{32}\b"), "<replica>"),
    (re.compile(r"\b(t_\w+?|task_\w+?)_([0-9a-f]{12}|[0-9a-f]{8})\b"), r"\1_<chance>"),
    (re.compile(r"\bdrawer_mined_(\w+?)_[0-9a-f]{24}\b"), r"drawer_mined_\1_<path>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
)


def normalised(answer: Answer, root: Path) -> Answer:
    """The answer without what differs from run to run: folders, times, and ids made of times or chance."""
    out = dict(answer)
    for key in ("text", "message"):
        if key in out:
            text = _in_order(str(out[key])).replace(str(root), "<root>")
            for pattern, stand_in in _NOISE:
                text = pattern.sub(stand_in, text)
            out[key] = text
    return out


def _in_order(text: str) -> str:
    """JSON with its members in alphabetical order: some come out of sets, so each process has its own order."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False)
    except ValueError:
        return text
