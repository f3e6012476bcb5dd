"""Who keeps the listening socket, and when it lets go."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.broker.http.keeper import Keeper
from mempalace_broker.system.private import VARIABLE
from tests.proctools import eventually, state_of


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(str(tmp_path / "palace"), {**os.environ, VARIABLE: str(tmp_path / "own")})
    yield made
    made.dismiss()


def test_one_process_until_the_broker_leaves(keeper: Keeper, listener: socket.socket) -> None:
    assert keeper.pid == 0
    keeper.start(listener)
    first = keeper.pid
    assert first
    keeper.start(listener)
    assert keeper.pid == first
    keeper.dismiss()
    assert keeper.pid == 0
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    keeper.dismiss()


def test_another_where_it_was_killed(keeper: Keeper, listener: socket.socket) -> None:
    keeper.start(listener)
    first = keeper.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not keeper.pid, what="its end noticed")
    keeper.start(listener)
    assert keeper.pid not in (0, first)


def test_one_that_was_stopped_holds_up_nobody(keeper: Keeper, listener: socket.socket) -> None:
    keeper.start(listener)
    os.kill(keeper.pid, signal.SIGSTOP)
    eventually(lambda: state_of(keeper.pid) == "T", what="a stopped keeper")
    keeper.dismiss()
    assert keeper.pid == 0
