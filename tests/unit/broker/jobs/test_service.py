"""The job API answers whatever it is asked."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mempalace_broker.broker.jobs.machine.job import Job, JobState
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
