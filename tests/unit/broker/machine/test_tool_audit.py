from __future__ import annotations

from mempalace_broker.broker.machine.tool_audit import audit


def test_audit_names_what_changed() -> None:
    tools: list[object] = [
        {"name": "mempalace_teleport", "inputSchema": {}},
        {"name": "mempalace_add_drawer", "annotations": {"readOnlyHint": True}, "inputSchema": {}},
        {"name": "mempalace_status", "annotations": {"destructiveHint": True}, "inputSchema": {}},
        {"name": "mempalace_mine", "inputSchema": {"properties": {"folder": {}}}},
        {"no": "name"},
        "text",
    ]
    findings = "\n".join(audit(tools))
    assert "mempalace_teleport is not in the tool table" in findings
    assert "mempalace_add_drawer is marked read-only" in findings
    assert "mempalace_add_drawer has no argument content" in findings
    assert "mempalace_status is marked destructive" in findings
    assert "mempalace_mine has no argument source" in findings
    assert findings.count("without a name") == 2
