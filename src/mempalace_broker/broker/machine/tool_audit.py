"""Compare an engine's tools/list with our table of tools. Only the broker does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...protocol.tools import rule_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


def audit(tools: Iterable[object]) -> list[str]:
    """Return one sentence for each difference that matters between an engine's tools/list and the table."""
    findings: list[str] = []
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            findings.append(f"tools/list holds an entry without a name: {str(tool)[:80]}")
            continue
        findings.extend(_audit_one(tool))
    return findings


def _audit_one(tool: Mapping[str, Any]) -> list[str]:
    name = tool["name"]
    rule = rule_for(name)
    if not rule.known:
        return [f"{name} is not in the tool table: treated as an exclusive write that is never sent again"]
    found = []
    hints = tool.get("annotations")
    if rule.writes and isinstance(hints, dict) and hints.get("readOnlyHint") is True:
        found.append(f"{name} is marked read-only by the engine but is a write in the tool table")
    if not rule.writes and isinstance(hints, dict) and hints.get("destructiveHint") is True:
        found.append(f"{name} is marked destructive by the engine but is a read in the tool table")
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    named = (*rule.paths, rule.embed) if rule.embed else rule.paths
    missing = [arg for arg in named if not isinstance(properties, dict) or arg not in properties]
    if missing:
        found.append(f"{name} has no argument {', '.join(missing)} any more")
    return found
