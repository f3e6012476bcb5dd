"""Who keeps the listening socket, and when it lets go."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.broker.http.handover import NAME, take
from mempalace_broker.broker.http.hub import hub_folder
from mempalace_broker.broker.http.keeper import Keeper
from mempalace_broker.system.private import VARIABLE, PrivateFolder, state_folder
from tests.proctools import eventually, state_of


def folder_of(tmp_path: Path) -> PrivateFolder:
    return hub_folder(state_folder(str(tmp_path / "palace"), {VARIABLE: str(tmp_path / "own")}))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(str(tmp_path / "palace"), {**os.environ, VARIABLE: str(tmp_path / "own")})
    assert not folder_of(tmp_path).make()
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


def test_the_next_broker_gets_the_socket_however_soon_it_comes(
    keeper: Keeper, listener: socket.socket, tmp_path: Path
) -> None:
    """It may look for it before the keeper knows that the broker was killed, and its own keeper follows at once."""
    place = folder_of(tmp_path).file(NAME)
    keeper.start(listener)
    os.kill(keeper.pid, signal.SIGSTOP)
    eventually(lambda: state_of(keeper.pid) == "T", what="a keeper that is late")
    assert keeper._parent is not None
    keeper._parent.close()
    keeper._parent = None
    threading.Timer(0.2, os.kill, (keeper.pid, signal.SIGCONT)).start()
    taken = take(place, 0)
    assert taken is not None
    assert taken.listener.getsockname() == listener.getsockname()
    assert taken.relied_on
    second = Keeper(str(tmp_path / "palace"), keeper._env)
    second.start(taken.listener)
    taken.parent.close()
    eventually(lambda: not keeper.pid, what="the end of the first")
    assert os.path.exists(place.path), "it is the second one's name"
    second.dismiss()
    assert not os.path.exists(place.path)
    taken.listener.close()
