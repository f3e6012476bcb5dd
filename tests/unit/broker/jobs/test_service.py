"""The job API answers whatever it is asked."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.jobs.machine.job import Job, JobState, asked_for
from mempalace_broker.broker.jobs.service import JobService
from mempalace_broker.broker.machine.lifecycle import BrokerState
from mempalace_broker.broker.tasks import Tasks
from mempalace_broker.system.private import VARIABLE, state_folder
from tests.fakes.clock import FakeClock


class Client:
    """A connection. `status`: of the answer that it got."""

    def __init__(self) -> None:
        self.reply: object = None
        self.status = asyncio.get_running_loop().create_future()

    def respond(self, status: int, _body: bytes) -> None:
        self.status.set_result(status)


def service_in(folder: Path, tasks: Tasks) -> JobService:
    protocol = SimpleNamespace(host=SimpleNamespace(epoch=1), state=BrokerState.SERVING)
    return JobService(
        cast(Any, SimpleNamespace(protocol=protocol, log=logging.getLogger("mempalace_broker.test"))),
        private=state_folder("/p", {VARIABLE: str(folder)}),
        palace="/p",
        clock=cast(Any, FakeClock()),
        tasks=tasks,
        number=lambda: 1,
    )


def test_a_job_that_is_nested_too_deeply_to_be_kept(tmp_path: Path) -> None:
    nested = b"[" * 900 + b"]" * 900
    body = b'{"kind": "mcp_tool", "payload": {"name": "mempalace_add_drawer", "arguments": {"x": %s}}}' % nested
    failed: list[BaseException] = []

    async def work() -> int:
        service = service_in(tmp_path, Tasks(lambda _, exc: failed.append(exc)))
        service.load()
        client = Client()
        service.handle(cast(Any, client), "POST", "/jobs", body)
        return int(await asyncio.wait_for(client.status, 20))

    assert asyncio.run(work()) == 500
    assert isinstance(failed[0], RecursionError)


def test_the_log_does_not_quote_why_a_job_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    why = {"message": "no such entry: my secret"}
    job = Job("j1", "diary_write", {}, "", created=0.0, epoch=1, state=JobState.FAILED, error=why)
    assert asyncio.run(service_in(tmp_path, Tasks(lambda *_: None))._keep(job))
    (record,) = caplog.records
    assert "(diary_write) failed: `mempalace daemon wait j1`" in record.getMessage()
    assert "my secret" not in record.getMessage()


class Broker:
    """What a service's jobs say to a broker. `said`: connection, method or tool, and state on disk at that time.

    Args:
        answers: by tool; the last one of a tool is repeated.
    """

    def __init__(self, service: JobService, **answers: list[dict[str, Any]]) -> None:
        self.service = service
        self.answers = answers
        self.said: list[tuple[int, str, dict[str, Any]]] = []

    async def say(self, job: Job, line: bytes) -> dict[str, Any]:
        params = json.loads(line)["params"]
        name = str(params.get("name", "outcomes")).removeprefix("mempalace_")
        (kept,) = self.service._store.load()[0]
        self.said.append((job.connection, name, {"connection": kept.connection, "unproved": kept.unproved}))
        answers = self.answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


UNKNOWN = {"error": {"code": errors.OUTCOME_UNKNOWN, "message": "why"}}
EMPTY = {"result": {"content": [{"type": "text", "text": '{"entries": []}'}]}}
STORED = {"result": {"content": [{"type": "text", "text": '{"success": true}'}]}}


def ran(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, later: bool = False, full: bool = False, **answers: Any
) -> tuple[list[tuple[int, str, dict[str, Any]]], Job]:
    """What a diary job said until it was over, and the job.

    Args:
        later: another broker goes on with it. full: its state can't be kept once it has been asked for.
    """

    async def work() -> tuple[list[tuple[int, str, dict[str, Any]]], Job]:
        service = service_in(folder, Tasks(lambda *_: None))
        broker = Broker(service, **answers)
        monkeypatch.setattr(service, "_say", broker.say)
        monkeypatch.setattr(service.queue, "put_back", lambda *_: None)
        body = {"kind": "diary_write", "payload": {"agent_name": "a", "entry": "e"}}
        job = asked_for(body, id_="1d", secret="5e", now=service._clock.wall(), epoch=1)
        service._store.save(job)
        if not later:
            service._known.add(job.id)
        if full:
            saves = iter([True, False])

            def save(_: Job) -> None:
                if not next(saves, True):
                    raise OSError("full")

            monkeypatch.setattr(service._store, "save", save)
        service.queue.add(job, 10)
        service._pump()

        async def until_over() -> None:
            while not job.over:  # noqa: ASYNC110 - a job tells nobody
                await asyncio.sleep(0)

        await asyncio.wait_for(until_over(), 20)
        return broker.said, job

    return asyncio.run(work())


def test_a_second_run_follows_a_proof_and_is_on_disk_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, job = ran(tmp_path, monkeypatch, diary_write=[UNKNOWN, STORED], diary_read=[EMPTY])
    assert said == [
        (1, "diary_write", {"connection": 1, "unproved": False}),
        (3, "diary_read", {"connection": 2, "unproved": True}),
        (4, "diary_write", {"connection": 4, "unproved": False}),
    ]
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)


def test_a_run_of_an_earlier_broker_is_proved_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = {"result": {"outcomes": {"2": {"state": "unknown"}}}}
    said, job = ran(tmp_path, monkeypatch, later=True, outcomes=[outcome], diary_write=[STORED], diary_read=[EMPTY])
    assert [(connection, name) for connection, name, _ in said] == [
        (2, "outcomes"),
        (3, "diary_read"),
        (4, "diary_write"),
    ]
    assert job.state is JobState.SUCCEEDED


def test_no_run_begins_that_is_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, job = ran(tmp_path, monkeypatch, full=True, diary_write=[UNKNOWN, STORED], diary_read=[EMPTY])
    assert [name for _, name, _ in said] == ["diary_write", "diary_read", "diary_read", "diary_write"]
    assert job.state is JobState.SUCCEEDED
