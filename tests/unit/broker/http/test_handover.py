"""Sockets from the broker that leaves to the next one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from mempalace_broker.broker.http import handover
from mempalace_broker.broker.http.handover import NAME, Handover, take
from mempalace_broker.system.private import PrivateFile, state_folder


@pytest.fixture
def place(tmp_path: Path) -> PrivateFile:
    folder = state_folder("/p", {"MEMPALACE_BROKER_PRIVATE": str(tmp_path)})
    assert not folder.make()
    return folder.file(NAME)


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.settimeout(10)
    return sock


def test_whoever_waits_is_answered_by_the_next_one(place: PrivateFile) -> None:
    old = listening()
    where = old.getsockname()
    resting = socket.create_connection(where, 10)
    leaving = Handover(old, place)
    leaving.connections.append(old.accept()[0])
    waiting = socket.create_connection(where, 10)
    thread = threading.Thread(target=leaving.run)
    thread.start()
    taken = take(place, 0)
    assert taken is not None
    assert not any(sock.get_inheritable() for sock in (taken.listener, *taken.connections)), "no child gets them"
    taken.listener.settimeout(10)
    with taken.listener, resting, waiting, taken.connections[0], taken.listener.accept()[0] as accepted:
        taken.connections[0].sendall(b"one")
        accepted.sendall(b"two")
        assert (resting.recv(3), waiting.recv(3)) == (b"one", b"two")
        assert thread.is_alive(), "it stays until the next one is found by others"
        taken.parent.close()
        thread.join(10)
        assert not thread.is_alive()
    assert not Path(place.path).exists()
    assert take(place, 0) is None


def test_another_port_is_not_taken(place: PrivateFile) -> None:
    leaving = Handover(listening(), place)
    thread = threading.Thread(target=leaving.run)
    thread.start()
    assert take(place, 1) is None
    thread.join(10)
    assert not thread.is_alive()


def test_nobody_comes(place: PrivateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "WAIT_S", 0.01)
    Handover(listening(), place).run()
    assert not Path(place.path).exists()
