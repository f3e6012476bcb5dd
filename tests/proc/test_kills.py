"""Eight sessions that never rest, and an engine that is killed every six seconds; many seeds of it are in tests/sim."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.harness import World, repeated
from tests.load import Load
from tests.proctools import eventually

pytestmark = pytest.mark.engine
EVERY_S = 6.0


@pytest.mark.parametrize("engine", ["newest"], indirect=True)
@repeated("kills", 2, 10)
def test_no_call_is_refused_and_none_fails_fast(world: World, kills: int) -> None:
    with Load(world, sessions=8) as load:
        load.wait_writes(8)
        broker = world.broker()
        for _ in range(kills):
            due = time.monotonic() + EVERY_S
            os.kill(eventually(lambda: broker.status()["engine"]["pid"], what="an engine"), signal.SIGKILL)
            eventually(lambda due=due: time.monotonic() >= due, 2 * EVERY_S)  # type: ignore[misc]
        load.wait_writes(8)
    load.verify()
    assert [session.refused for session in load.sessions] == [{}] * 8
    assert sum(len(session.unknown) for session in load.sessions) <= 2 * kills, "one a lane and kill"
