"""`ensure` against a listener that is killed between accepting and answering."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mempalace_broker.cli.serve import TRIES, ensure
from mempalace_broker.errors import BrokerUnavailable
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.system.paths import Context

Answers = Callable[[int], None]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    root = tmp_path / "r"
    palace = root / "palace"
    palace.mkdir(parents=True)
    identity = PalaceIdentity(str(palace), str(root / "graph"), "flag")
    return Context(identity, {"MEMPALACE_BROKER_PRIVATE": str(tmp_path / "private")})


@pytest.fixture
def breaks_off(context: Context) -> Iterator[Answers]:
    """A listener that leaves that many connections before it answers one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(context.files.socket)
        listener.listen()

        def serve(count: int) -> None:
            with contextlib.suppress(OSError):  # the test is over
                for _ in range(count):
                    listener.accept()[0].close()
                conn, _ = listener.accept()
                with conn:
                    conn.recv(65536)
                    conn.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"pid": 7}}).encode() + b"\n")

        threads: list[threading.Thread] = []

        def begin(count: int) -> None:
            threads.append(threading.Thread(target=serve, args=(count,), daemon=True))
            threads[0].start()

        yield begin
        listener.shutdown(socket.SHUT_RDWR)  # whether or not it still waits for a connection
        threads[0].join(10)
        assert not threads[0].is_alive()


def test_ensure_tries_again_where_the_broker_leaves_before_it_answers(context: Context, breaks_off: Answers) -> None:
    breaks_off(TRIES - 1)
    assert ensure(context)["pid"] == 7


def test_it_does_not_try_for_ever(context: Context, breaks_off: Answers) -> None:
    breaks_off(TRIES)
    with pytest.raises(BrokerUnavailable, match=r"broke off|closed the connection"):
        ensure(context)
