"""What an answer makes of a job, and what is asked after a broker's death."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.jobs.machine.job import GIVE_UP_S, MOST_PROVED, MOST_RUNS, Job, JobState, asked_for
from mempalace_broker.broker.jobs.machine.proof import DIARY_TOOL

DIARY = {"kind": "diary_write", "payload": {"agent_name": "a", "entry": "e", "topic": "", "x": 1}}
MINE = {"kind": "mine", "payload": {"source": "/notes", "mode": "convos"}, "dedupe_key": "k", "priority": 3}


def job_of(body: dict[str, Any], **more: Any) -> Job:
    return asked_for({**body, **more}, id_="1d", secret="5e" * 16, now=1000.0, epoch=4)


def running(body: dict[str, Any]) -> Job:
    job = job_of(body)
    job.begins(1001.0)
    return job


def told(value: object, **more: Any) -> dict[str, Any]:
    return {"result": {"content": [{"type": "text", "text": json.dumps(value)}], **more}}


def error(code: int, text: str = "why") -> dict[str, Any]:
    return {"error": {"code": code, "message": text}}


def test_a_job_is_kept_and_told_in_mempalaces_words() -> None:
    job = running(MINE)
    again = Job.decode(job.encode())
    assert again is not None
    assert again.as_json(payload=True) == job.as_json(payload=True)
    assert (again.secret, again.connection, again.epoch) == (job.secret, 1, 4)
    shown = job.as_json()
    assert (shown["state"], shown["priority"], shown["attempts"]) == ("running", 3, 1)
    assert shown["created_at"] == "1970-01-01T00:16:40+00:00"
    assert not {"payload", "secret"} & set(shown)


@pytest.mark.parametrize("data", [None, b"", b"[]", b"{}", b'{"id": 1}', b"\xff"])
def test_what_is_no_job_is_passed_over(data: bytes | None) -> None:
    assert Job.decode(data) is None


def test_a_file_of_an_unknown_state_or_kind_is_no_job() -> None:
    good = json.loads(job_of(DIARY).encode())
    for name, value in (("state", "lost"), ("kind", "rm"), ("payload", []), ("more", 1)):
        assert Job.decode(json.dumps({**good, name: value}).encode()) is None


def test_a_diary_entry_is_an_ordinary_call() -> None:
    line = json.loads(job_of(DIARY).line())
    assert line["method"] == "tools/call"
    assert line["params"] == {"name": "mempalace_diary_write", "arguments": {"agent_name": "a", "entry": "e"}}
    line = json.loads(
        job_of({"kind": "mcp_tool", "payload": {"name": "mempalace_kg_add", "arguments": {"s": 1}}}).line()
    )
    assert line["params"] == {"name": "mempalace_kg_add", "arguments": {"s": 1}}


@pytest.mark.parametrize(("payload", "apply"), [({}, False), ({"dry_run": True}, False), ({"dry_run": False}, True)])
def test_a_sync_writes_only_where_it_is_told_to(payload: dict[str, Any], apply: bool) -> None:
    line = json.loads(job_of({"kind": "sync", "payload": payload}).line())
    assert (line["method"], line["params"]["name"], line["params"]["kind"]) == ("broker/job", "mempalace_sync", "sync")
    assert line["params"]["arguments"]["apply"] is apply


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "unknown kind"),
        ({"kind": "shutdown"}, "unknown kind"),
        ({"kind": "mine", "payload": []}, None),
        ({"kind": "mine", "payload": "x"}, "unknown kind"),
        ({"kind": "mine", "payload": {"source": "notes"}}, "relative"),
        ({"kind": "mine", "payload": {"source": 1}}, "relative"),
        ({"kind": "sweep", "payload": {"target": "../x"}}, "relative"),
        ({"kind": "sync", "payload": {"root": ["/a", "b"]}}, "relative"),
        ({"kind": "sync", "payload": {"root": "b", "dir": "~/x"}}, None),
        ({"kind": "mcp_tool", "payload": {"name": "mempalace_search"}}, "tools that write"),
        ({"kind": "mcp_tool", "payload": {"name": "mempalace_mine"}}, "tools that write"),
        ({"kind": "mcp_tool", "payload": {"name": "mempalace_nothing"}}, "tools that write"),
        ({"kind": "mcp_tool", "payload": {}}, "tools that write"),
    ],
)
def test_what_is_taken(body: dict[str, Any], why: str | None) -> None:
    if why is None:
        assert job_of(body).waits
    else:
        with pytest.raises(ValueError, match=why):
            job_of(body)


def test_a_tool_that_says_error_has_failed() -> None:
    good, bad, odd, flat = (running(DIARY) for _ in range(4))
    assert not good.took(told({"success": True, "entry_id": "e"}), 1002.0)
    assert not bad.took(told({"error": "full"}), 1002.0)
    assert not odd.took({"result": {}}, 1002.0)
    assert not flat.took(told("no", isError=True), 1002.0)
    assert (good.state, bad.state, odd.state, flat.state) == (JobState.SUCCEEDED, *[JobState.FAILED] * 3)
    assert good.result == {"success": True, "exit_code": 0, "entry_id": "e"}
    assert bad.error == {"message": "full"}
    assert (flat.result or {})["error"] == "no"
    assert (good.payload, good.secret) == ({}, "")


def test_what_mempalaces_own_code_told_is_the_result() -> None:
    job = running(MINE)
    job.took({"result": {"success": False, "error": "no such file", "exit_code": 7, "stdout": "x"}}, 1002.0)
    assert job.result == {"success": False, "error": "no such file", "exit_code": 7, "stdout": "x"}
    assert job.state is JobState.FAILED


@pytest.mark.parametrize("code", [errors.NOT_EXECUTED, errors.WAIT_TIMEOUT, errors.ENGINE_DOWN, errors.OVERLOADED])
def test_what_was_not_executed_runs_later_until_nobody_waits_for_it(code: int) -> None:
    job = running(DIARY)
    for now in (1002.0, 1000.0 + GIVE_UP_S):
        assert job.took(error(code), now)
        assert (job.attempts, (job.error or {})["error_class"]) == (0, "LockHeldByOtherProcess")
        job.begins(now)
    assert not job.took(error(code), 1001.0 + GIVE_UP_S)
    assert job.state is JobState.FAILED


def tool(name: str) -> dict[str, Any]:
    return {"kind": "mcp_tool", "payload": {"name": f"mempalace_{name}", "arguments": {"content": "c"}}}


@pytest.mark.parametrize("name", ["checkpoint", "kg_add", "delete_drawer", "delete_by_source", "event_append"])
def test_an_unknown_outcome_is_reported_where_a_second_run_might_do_harm(name: str) -> None:
    job = running(tool(name))
    assert not job.took(error(errors.OUTCOME_UNKNOWN), 1002.0)
    assert (job.state, job.error) == (JobState.FAILED, {"message": "why"})


@pytest.mark.parametrize("body", [MINE, tool("add_drawer"), tool("create_tunnel")])
def test_an_unknown_outcome_leads_to_another_run_that_does_no_harm(body: dict[str, Any]) -> None:
    job = running(body)
    for _ in range(MOST_RUNS - 1):
        assert job.took(error(errors.OUTCOME_UNKNOWN), 1002.0)
        assert not job.unproved
        job.begins(1003.0)
    assert not job.took(error(errors.OUTCOME_UNKNOWN), 1004.0)
    assert not running(body).took(error(errors.INVALID_PARAMS), 1002.0)


def unproved(body: dict[str, Any] = DIARY) -> Job:
    """A job whose outcome is asked for."""
    job = running(body)
    job.given = 1001.0
    assert job.took(error(errors.OUTCOME_UNKNOWN), 1002.0)
    assert job.unproved
    job.begins(1003.0)
    return job


def diary(*entries: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(1001.5).isoformat()
    shown = [{"timestamp": at, "topic": "general", "content": text} for text in entries]
    return told({"agent": "a", "entries": shown, "total": len(shown)})


def test_the_store_proves_the_outcome_of_a_diary_entry() -> None:
    stored, lost = unproved(), unproved({"kind": "mcp_tool", "payload": {"name": DIARY_TOOL, "arguments": {}}})
    assert json.loads(stored.proof())["params"]["name"] == "mempalace_diary_read"
    stored.took_proof(diary("e"), 1004.0)
    assert (stored.state, stored.attempts, (stored.result or {})["success"]) == (JobState.SUCCEEDED, 1, True)
    lost.took_proof(diary("other"), 1004.0)
    assert (lost.state, lost.attempts, lost.unproved) == (JobState.RUNNING, 2, False)


def test_an_entry_that_each_run_failed_to_store_is_given_up() -> None:
    job = unproved()
    for _ in range(MOST_PROVED - 1):
        job.took_proof(diary(), 1004.0)
        assert job.took(error(errors.OUTCOME_UNKNOWN), 1005.0)
        job.begins(1006.0)
    job.took_proof(diary(), 1007.0)
    assert (job.state, job.attempts) == (JobState.FAILED, MOST_PROVED)
    assert f"in each of {MOST_PROVED} attempts" in str(job.error)


def test_a_store_that_can_not_be_read_is_asked_again_unless_that_ends_engines() -> None:
    for answer in (error(errors.ENGINE_DOWN), told({"error": "Failed to read diary entries"})):
        job = unproved()
        job.took_proof(answer, 1004.0)
        assert (job.waits, job.unproved, job.attempts) == (True, True, 1)
    job = unproved()
    job.took_proof(error(errors.INTERNAL_ERROR), 1004.0)
    assert (job.state, job.attempts) == (JobState.FAILED, 1)
    job = unproved()
    job.took_proof(diary(*[f"newer {n}" for n in range(100)]), 1004.0)
    assert "other entries hide it" in str(job.error)


def test_no_call_without_arguments_is_asked_for() -> None:
    job = running({"kind": "mcp_tool", "payload": {"name": DIARY_TOOL, "arguments": ["x"]}})
    assert not job.took(error(errors.OUTCOME_UNKNOWN), 1002.0)
    assert job.state is JobState.FAILED


def test_after_a_brokers_death_it_asks_about_the_connection_before() -> None:
    job = running(DIARY)
    job.connection, job.given = 5, 1001.0
    job.begins(1030.0)  # the turn in which it asks is not that in which it ran
    hello, question = json.loads(job.hello(7)), json.loads(job.question(1031.0))
    assert (hello["params"]["connection"], hello["params"]["secret"]) == (5, "5e" * 16)
    assert question["params"] == {"connection": 4, "lines": [2], "age_s": 630.0, "epoch": 4}
    assert json.loads(job.question(900.0))["params"]["age_s"] == 600.0  # the clock was set back


def outcome(state: str, response: object = None) -> dict[str, Any]:
    found = {"state": state} if response is None else {"state": state, "response": response}
    return {"result": {"outcomes": {"2": found}}}


def test_what_the_journal_says_of_it() -> None:
    done, new, lost, odd, mined = running(DIARY), running(DIARY), running(DIARY), running(DIARY), running(MINE)
    done.took_outcome(outcome("done", told({"success": True})), 1002.0)
    new.took_outcome(outcome("not_started"), 1002.0)
    lost.took_outcome(outcome("unknown"), 1002.0)
    odd.took_outcome({"error": {"code": 1}}, 1002.0)
    mined.took_outcome(outcome("done"), 1002.0)  # its answer was too long to keep
    assert (done.state, new.state, new.attempts) == (JobState.SUCCEEDED, JobState.QUEUED, 0)
    assert lost.state == odd.state == mined.state == JobState.QUEUED
    assert (lost.unproved, odd.unproved, mined.unproved) == (True, True, False)
    assert (done.attempts, lost.attempts, mined.attempts) == (1, 1, 1)


def test_a_question_after_a_brokers_death_is_no_attempt() -> None:
    job = running(DIARY)
    for _ in range(9):
        job.begins(1002.0)
        job.took_outcome(outcome("unknown"), 1003.0)
    assert (job.attempts, job.unproved) == (1, True)
