"""The job API answers whatever it is asked."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

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


def test_a_job_that_is_nested_too_deeply_to_be_kept(tmp_path: Path) -> None:
    protocol = SimpleNamespace(host=SimpleNamespace(epoch=1), state=BrokerState.SERVING)
    nested = b"[" * 900 + b"]" * 900
    body = b'{"kind": "mcp_tool", "payload": {"name": "mempalace_add_drawer", "arguments": {"x": %s}}}' % nested
    failed: list[BaseException] = []

    async def work() -> int:
        service = JobService(
            cast(Any, SimpleNamespace(protocol=protocol, log=logging.getLogger("test"))),
            private=state_folder("/p", {VARIABLE: str(tmp_path)}),
            palace="/p",
            clock=cast(Any, FakeClock()),
            tasks=Tasks(lambda _, exc: failed.append(exc)),
            number=lambda: 1,
        )
        service.load()
        client = Client()
        service.handle(cast(Any, client), "POST", "/jobs", body)
        return int(await asyncio.wait_for(client.status, 20))

    assert asyncio.run(work()) == 500
    assert isinstance(failed[0], RecursionError)
