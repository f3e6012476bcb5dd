"""Eight sessions that never rest, and an engine that is killed every six seconds; many seeds of it are in tests/sim."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.harness import Broker, World, repeated
from tests.load import Load
from tests.proctools import eventually

pytestmark = pytest.mark.engine
EVERY_S = 6.0


def start_s(broker: Broker) -> float:
    """How long this machine takes to replace an engine: on a busy one six seconds may be too short to ever serve."""
    killed = time.monotonic()
    os.kill(broker.engine_pid(), signal.SIGKILL)
    eventually(lambda: broker.status()["engine"]["generation"] > 1, what="the next engine")
    broker.engine_pid()
    return time.monotonic() - killed


@pytest.mark.parametrize("engine", ["newest"], indirect=True)
@repeated("kills", 2, 10)
def test_no_call_is_refused_and_none_fails_fast(world: World, kills: int) -> None:
    with Load(world, sessions=8) as load:
        load.wait_writes(8)
        broker = world.broker()
        every_s = max(EVERY_S, 1.5 * start_s(broker))
        for _ in range(kills):
            due = time.monotonic() + every_s
            os.kill(eventually(lambda: broker.status()["engine"]["pid"], what="an engine"), signal.SIGKILL)
            eventually(lambda due=due: time.monotonic() >= due, 2 * every_s)  # type: ignore[misc]
        load.wait_writes(8)
    load.verify()
    assert [session.refused for session in load.sessions] == [{}] * 8
    assert sum(len(session.unknown) for session in load.sessions) <= 2 * (kills + 1), "what was under way in two lanes"
