from __future__ import annotations

import json
from typing import Any

import pytest

from mempalace_broker.broker.machine.call import Call
from mempalace_broker.broker.machine.replay import Verdict, after_death, settle_replayed
from mempalace_broker.protocol.tools import rule_for


def call_of(tool: str, attempts: int = 1) -> Call:
    rule = rule_for(tool)
    return Call(
        n=1,
        conn=1,
        flow=1,
        key="k",
        id=1,
        raw=b"",
        tool=tool,
        rule=rule,
        arrived=0.0,
        run_limit=None,
        writes=rule.may_write({}),
        replay=rule.replay_for({}),
        attempts=attempts,
    )


NEVER, IDEMPOTENT, READ = "mempalace_diary_write", "mempalace_add_drawer", "mempalace_search"


@pytest.mark.parametrize(
    ("tool", "attempts", "ended", "begun", "verdict"),
    [
        (NEVER, 1, {}, set(), Verdict.RERUN),
        (NEVER, 5, {}, set(), Verdict.RERUN),
        (NEVER, 1, {}, {"k"}, Verdict.UNKNOWN),
        (NEVER, 1, {"k": b"x"}, set(), Verdict.ANSWER),
        (NEVER, 1, {"k": None}, set(), Verdict.ANSWER),
        (IDEMPOTENT, 1, {}, set(), Verdict.RERUN),
        (IDEMPOTENT, 1, {}, {"k"}, Verdict.RERUN),
        (IDEMPOTENT, 2, {}, {"k"}, Verdict.UNKNOWN),
        (IDEMPOTENT, 2, {"k": b"x"}, set(), Verdict.ANSWER),
        ("never_heard_of", 1, {}, {"k"}, Verdict.UNKNOWN),
        ("never_heard_of", 1, {}, {"other"}, Verdict.RERUN),
        (READ, 1, {}, set(), Verdict.RERUN),
        (READ, 2, {}, set(), Verdict.RERUN),
        (READ, 3, {}, set(), Verdict.POISON),
        ("mempalace_event_wait", 9, {}, set(), Verdict.RERUN),
        ("mempalace_sync", 1, {}, set(), Verdict.RERUN),  # without `apply` it is a read
    ],
)
def test_what_becomes_of_a_call(
    tool: str, attempts: int, ended: dict[str, bytes | None], begun: set[str], verdict: Verdict
) -> None:
    assert after_death(call_of(tool, attempts), ended, begun) == verdict


def said(told: object) -> bytes:
    return json.dumps({"id": 1, "result": {"isError": True, "content": [{"type": "text", "text": told}]}}).encode()


GONE = json.dumps({"success": False, "error": "Drawer NOT FOUND: é"})


def test_a_second_delete_that_finds_nothing_has_succeeded() -> None:
    message: dict[str, Any] = json.loads(settle_replayed(call_of("mempalace_delete_drawer", 2), said(GONE)))
    assert "isError" not in message["result"]
    told = json.loads(message["result"]["content"][0]["text"])
    assert told["success"] is True
    assert "repeated" in told["note"]


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("mempalace_delete_hallway", {"deleted": False}),
        ("mempalace_delete_hallway", {"deleted": False, "success": False, "error": "locked"}),
        ("mempalace_delete_drawers", {"success": True, "errors": 1, "results": [{"error": "Drawer not found: x"}]}),
    ],
)
def test_a_second_delete_that_found_less_says_that_it_was_repeated_and_nothing_else(
    tool: str, told: dict[str, Any]
) -> None:
    message: dict[str, Any] = json.loads(settle_replayed(call_of(tool, 2), said(json.dumps(told))))
    repeated = json.loads(message["result"]["content"][0]["text"])
    assert "repeated" in repeated.pop("note")
    assert repeated == told


@pytest.mark.parametrize(
    ("tool", "attempts", "response"),
    [
        ("mempalace_delete_drawer", 1, said(GONE)),
        (IDEMPOTENT, 2, said(GONE)),
        ("mempalace_delete_drawer", 2, said(json.dumps({"success": False, "error": "locked"}))),
        ("mempalace_delete_drawer", 2, said(json.dumps({"success": True}))),
        ("mempalace_delete_drawer", 2, said("no json")),
        ("mempalace_delete_drawer", 2, said(7)),
        ("mempalace_delete_drawer", 2, said("7")),
        ("mempalace_delete_drawer", 2, said("[]")),
        ("mempalace_delete_drawer", 2, b'{"id":1,"error":{"code":-32000}}'),
        ("mempalace_delete_drawer", 2, b'{"id":1,"result":{"content":[]}}'),
        ("mempalace_delete_drawer", 2, b"[]"),
        ("mempalace_delete_drawer", 2, b"x"),
    ],
)
def test_every_other_response_passes_unchanged(tool: str, attempts: int, response: bytes) -> None:
    assert settle_replayed(call_of(tool, attempts), response) == response
