"""What a request for a tool becomes: its limit, its name, whether it writes and what may run beside it."""

from __future__ import annotations

from typing import Any

import pytest

from mempalace_broker.broker.machine.call import NO_SUCH_TOOL, Call, call_of, rule_of
from mempalace_broker.protocol import jsonrpc as rpc
from mempalace_broker.protocol.tools import NO_LIMIT, UNKNOWN_TOOL, Lane, Replay, rule_for

OFFERED: list[object] = [7, {"name": "brand_new"}, {"name": "mempalace_search"}]


def made(tool: str, run_s: float = 60.0, **arguments: Any) -> Call:
    params = {"name": tool, "arguments": arguments}
    message = rpc.classify({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params})
    return call_of(message, b"line", rule_of(tool, OFFERED), n=1, conn=2, flow=2, key="k", run_s=run_s, now=3.0)


@pytest.mark.parametrize(
    ("tool", "run_s", "limit"),
    [
        ("mempalace_search", 60.0, 60.0),
        ("mempalace_search", 0.0, None),  # 0 turns the limit off
        ("mempalace_mine", 60.0, None),  # takes hours by nature
        ("mempalace_event_wait", 60.0, 7.0),  # its own timeout and a grace
        ("mempalace_event_wait", 0.0, None),
    ],
)
def test_how_long_it_may_run(tool: str, run_s: float, limit: float | None) -> None:
    assert rule_for("mempalace_mine").own_limit_s({}) == NO_LIMIT
    assert made(tool, run_s, timeout_ms=2000).run_limit == limit


@pytest.mark.parametrize(
    ("tool", "exclusive"),
    [
        ("mempalace_add_drawer", False),
        ("mempalace_reconnect", True),  # drops every handle
        ("brand_new", True),  # the engine has it, our table hasn't: it may do anything
        ("never_heard_of", False),  # the engine will refuse it
    ],
)
def test_what_nothing_may_run_beside(tool: str, exclusive: bool) -> None:
    assert made(tool).exclusive is exclusive


def test_a_tool_has_the_name_of_its_row_and_else_the_clients_shortened() -> None:
    assert made("mempalace_search").tool == "mempalace_search"
    assert made("x" * 100).tool == "x" * 64


@pytest.mark.parametrize(("apply", "writes", "replay"), [(True, True, Replay.IDEMPOTENT), (False, False, Replay.READ)])
def test_the_arguments_say_whether_it_writes(apply: bool, writes: bool, replay: Replay) -> None:
    call = made("mempalace_sync", apply=apply)
    assert (call.writes, call.replay) == (writes, replay)
    assert (call.n, call.conn, call.key, call.id, call.raw, call.arrived) == (1, 2, "k", 5, b"line", 3.0)


def test_the_rule_of_a_tool() -> None:
    assert rule_of("mempalace_search", None) is rule_of("mempalace_search", []) is rule_for("mempalace_search")
    assert rule_of("never_heard_of", None) is UNKNOWN_TOOL, "until the engine has listed its tools"
    assert rule_of("never_heard_of", OFFERED) is NO_SUCH_TOOL
    assert rule_of("brand_new", OFFERED) is UNKNOWN_TOOL
    assert NO_SUCH_TOOL.lane == Lane.FREE, "a wrong name waits for no mine"
