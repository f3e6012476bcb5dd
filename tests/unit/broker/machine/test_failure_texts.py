"""What an agent reads says what happened, whether to send again, and where to look."""

from __future__ import annotations

from mempalace_broker.broker.machine import failure_texts as texts
from mempalace_broker.broker.machine.supervisor import Policy, Supervisor
from tests.unit.broker.machine.test_replay import NEVER, READ, call_of


def supervisor(reason: str = "", hint: str = "") -> Supervisor:
    made = Supervisor(Policy(), lambda: 0.0)
    made.reason, made.hint = reason, hint
    return made


def test_an_unknown_outcome_names_the_tool_to_look_with_where_there_is_one() -> None:
    assert "Before you send it again, check with mempalace_diary_read." in texts.unknown(call_of(NEVER))
    assert "Before you send it again, check." in texts.unknown(call_of("never_heard_of"))


def test_an_engine_that_is_down_has_its_own_hint_before_the_general_one() -> None:
    assert texts.engine_down(supervisor(), 0.0) == f"the mempalace engine is down: no reason known. {texts.DOWN_HINT}"
    assert texts.engine_down(supervisor("no disk", "buy one"), 0.0) == (
        "the mempalace engine is down: no disk. Hint: buy one."
    )


def test_an_engine_that_starts_needs_no_reason() -> None:
    made = supervisor()
    made.start(0.0)
    made.spawned(0.0, 10)
    assert texts.engine_state(made, 0.0) == "the mempalace engine is starting"
    made.reason = "the engine ended: signal 9"
    assert texts.engine_state(made, 0.0) == "the mempalace engine is starting: the engine ended: signal 9"


def test_an_unavailable_engine_says_since_when_and_when_it_is_tried_again() -> None:
    made = supervisor()
    for now in (100.0, 110.0):
        made.start(now)
        made.failed(now, "the disk is full", "make room", permanent=False)
    told = "the mempalace engine has been unavailable for 11 s (the disk is full); a call in 1 s tries again"
    assert texts.engine_state(made, 111.0) == told
    assert texts.engine_state(made, 100.0).startswith("the mempalace engine is unavailable (the disk is full); ")
    made.start(111.0)
    made.failed(111.0, "no mempalace", "", permanent=True)
    assert texts.engine_state(made, 112.0) == "the mempalace engine can't start: no mempalace"


def test_a_call_that_waited_too_long_is_told_behind_what() -> None:
    call = call_of(READ)
    assert "waited 60 s (MEMPALACE_MCP_TIMEOUT_MS) behind mempalace_mine and was not" in texts.waited(
        call, 60.0, ["mempalace_mine"], supervisor()
    )
    assert "for the engine (down: starting) and was not executed" in texts.waited(call, 60.0, [], supervisor())
    assert "for the engine (down: no disk)" in texts.waited(call, 60.0, [], supervisor("no disk"))
