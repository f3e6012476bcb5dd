"""The tool table against the real tools of both engine versions, and its argument-dependent answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.broker.machine.tool_audit import audit
from mempalace_broker.protocol import tools
from mempalace_broker.protocol.tools import TOOLS, UNKNOWN_TOOL, Lane, Replay, RunLimit, ToolRule, rule_for

DATA = Path(__file__).parents[2] / "data"
VERSIONS = ("3.4.0", "3.11.0")
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def tools_of(version: str) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = json.loads((DATA / f"tools-{version}.json").read_text(encoding="utf-8"))
    return tools


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_knows_every_tool_of_the_engine(version: str) -> None:
    assert audit(tools_of(version)) == []
    assert all(rule_for(tool["name"]).known for tool in tools_of(version))


def test_the_table_knows_no_tool_that_never_was() -> None:
    real = {tool["name"] for version in VERSIONS for tool in tools_of(version)}
    assert set(TOOLS) == real


def test_every_read_only_hint_of_the_engine_is_a_read_here() -> None:
    hinted = [tool["name"] for tool in tools_of("3.11.0") if tool.get("annotations", {}).get("readOnlyHint") is True]
    assert len(hinted) == 14
    assert all(not rule_for(name).writes for name in hinted)


@pytest.mark.parametrize("rule", [*TOOLS.values(), UNKNOWN_TOOL], ids=repr)
def test_rows_are_consistent(rule: ToolRule) -> None:
    assert rule.lane in {Lane.PALACE, Lane.FREE, Lane.WAIT}
    assert rule.limit in {RunLimit.BROKER, RunLimit.NONE, RunLimit.OWN}
    assert (rule.replay == Replay.READ) is (not rule.writes)
    assert rule.graph is ("_kg_" in rule.name)
    assert (rule.lane == Lane.WAIT) is (rule.limit == RunLimit.OWN)
    if rule.store in {"chroma", "json"}:
        assert rule.lane == Lane.PALACE
    if rule.gone_ok:
        assert rule.replay == Replay.IDEMPOTENT
    if rule.check_with:
        assert rule.check_with in TOOLS
        assert not rule_for(rule.check_with).may_write({})


@pytest.mark.parametrize("version", VERSIONS)
def test_an_argument_that_names_a_file_is_in_paths(version: str) -> None:
    looks_like_a_path = {"source", "project_dir", "path", "dir", "directory", "folder", "file"}
    found = {
        (tool["name"], name)
        for tool in tools_of(version)
        for name in tool["inputSchema"].get("properties", {})
        if name in looks_like_a_path
    }
    assert found == {(rule.name, name) for rule in TOOLS.values() for name in rule.paths} & found
    assert ("mempalace_sync", "project_dir") in found


@pytest.mark.parametrize("name", ["", "mempalace_", "add_drawer", "mempalace_ADD_DRAWER", None, 7, [], {}])
def test_an_unknown_tool_is_an_exclusive_write_that_never_runs_again(name: object) -> None:
    rule = rule_for(name)
    assert rule is UNKNOWN_TOOL
    assert rule.writes
    assert rule.lane == Lane.PALACE
    assert rule_for(name).may_write({}) is True
    assert rule_for(name).replay_for({}) == Replay.NEVER


@pytest.mark.parametrize(
    ("tool", "arguments", "writes"),
    [
        ("sync", {}, False),
        ("sync", {"apply": False}, False),
        ("sync", {"apply": True}, True),
        ("sync", {"apply": "false"}, True),  # mempalace tests truth
        ("sync", {"apply": None}, False),
        ("sync", None, False),
        ("sync", "nonsense", True),
        ("mine", {"source": "/x"}, True),
        ("mine", {"source": "/x", "dry_run": True}, False),
        ("mine", {"source": "/x", "dry_run": 0}, True),
        ("delete_by_source", {"source_file": "a"}, False),  # a dry run is its default
        ("delete_by_source", {"source_file": "a", "dry_run": False}, True),
        ("delete_by_source", {"source_file": "a", "dry_run": None}, True),
        ("hook_settings", {}, False),
        ("hook_settings", {"silent_save": None}, False),
        ("hook_settings", {"silent_save": False}, True),
        ("hook_settings", {"desktop_toast": True}, True),
        ("add_drawer", {}, True),
        ("search", {"query": "x"}, False),
        ("follow_tunnels", {}, True),
    ],
)
def test_may_write(tool: str, arguments: object, writes: bool) -> None:
    assert rule_for("mempalace_" + tool).may_write(arguments) is writes
    if not writes:
        assert rule_for("mempalace_" + tool).replay_for(arguments) == Replay.READ


@pytest.mark.parametrize(
    ("tool", "arguments", "replay"),
    [
        ("add_drawer", {"content": "x"}, Replay.IDEMPOTENT),
        ("kg_add", {"subject": "a", "predicate": "b", "object": "c"}, Replay.IDEMPOTENT),
        ("kg_add", {"subject": "a", "predicate": "b", "object": "c", "valid_to": None}, Replay.IDEMPOTENT),
        (
            "kg_add",
            {"subject": "a", "predicate": "b", "object": "c", "valid_to": "2026-01-01"},
            Replay.NEVER,
        ),
        ("kg_supersede", {"old_object": "a", "new_object": "b"}, Replay.IDEMPOTENT),
        ("kg_supersede", {"old_object": "Max", "new_object": "max "}, Replay.NEVER),
        ("diary_write", {"entry": "x"}, Replay.NEVER),
        ("checkpoint", {"items": []}, Replay.NEVER),
        ("sync", {"apply": True}, Replay.IDEMPOTENT),
        ("status", {}, Replay.READ),
    ],
)
def test_replay_for(tool: str, arguments: dict[str, Any], replay: str) -> None:
    assert rule_for("mempalace_" + tool).replay_for(arguments) == replay


@given(tool=st.sampled_from(sorted(TOOLS)) | HOSTILE, arguments=HOSTILE)
def test_no_arguments_make_it_raise_or_turn_a_read_into_a_write(tool: Any, arguments: Any) -> None:
    writes = rule_for(tool).may_write(arguments)
    assert rule_for(tool).writes or not writes
    assert (rule_for(tool).replay_for(arguments) == Replay.READ) is (not writes)


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ({}, 65.0),
        (None, 65.0),
        ({"timeout_ms": 1000}, 6.0),
        ({"timeout_ms": 0}, 5.0),
        ({"timeout_ms": -5}, 5.0),
        ({"timeout_ms": 10**30}, 305.0),
        ({"timeout_ms": "2000"}, 7.0),
        ({"timeout_ms": "soon"}, 65.0),
        ({"timeout_ms": float("inf")}, 65.0),
    ],
)
def test_own_limit(arguments: object, seconds: float) -> None:
    assert rule_for("mempalace_event_wait").own_limit_s(arguments) == seconds


def test_it_stays_within_the_import_budget_of_the_shim() -> None:
    heavy = {"dataclasses", "typing", "argparse", "pathlib", "enum", "logging", "re", "inspect", "json"}
    code = "import sys, mempalace_broker.protocol.tools; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": str(Path(tools.__file__).parents[2])},
    ).stdout.split()
    assert heavy & set(loaded) == set()
