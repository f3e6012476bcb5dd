"""Asking a broker: answers, silence, garbage, nobody there."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import OTHER_PALACE, BrokerUnavailable, UsageError
from mempalace_broker.protocol.palace import PalaceIdentity
from mempalace_broker.route.ask import BrokerReply, ask_broker, socket_paths
from mempalace_broker.route.machine.election import CONNECT_ENOENT, CONNECT_OK, CONNECT_REFUSED
from mempalace_broker.system.clock import Clock, Deadline
from mempalace_broker.system.paths import Context, StateFiles

Behaviour = Callable[[socket.socket], None]


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mpb-", dir="/tmp") as folder:
        yield Path(folder)


class Server:
    """Accepts one connection and behaves."""

    def __init__(self, path: Path, behaviour: Behaviour) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._behaviour = behaviour
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        client, _ = self._socket.accept()
        with client:
            self._behaviour(client)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._socket.close()


def context_of(root: Path, **env: str) -> Context:
    palace = str(root / "palace")
    return Context(PalaceIdentity(palace, "", "default"), env, files=StateFiles(str(root), palace))


def asked(root: Path, seconds: float = 5.0) -> BrokerReply:
    return ask_broker(context_of(root), "broker/status", {}, Deadline.after(Clock(), seconds))


def answering(answer: object) -> Behaviour:
    def behave(client: socket.socket) -> None:
        request = json.loads(client.makefile("rb").readline())
        assert request["method"] == "broker/status"
        line = json.dumps(answer).encode() + b"\n"
        client.sendall(line[:7])
        client.sendall(line[7:])

    return behave


def test_the_answer_comes_back(root: Path) -> None:
    big = {"text": "x" * 300_000}
    with Server(root / "broker.sock", answering({"jsonrpc": "2.0", "id": 1, "result": big})):
        said = asked(root)
    assert said.answer == big
    assert said.connect == CONNECT_OK
    assert said.why == ""


def test_silence_is_an_owner_without_an_answer(root: Path) -> None:
    over = threading.Event()
    with Server(root / "broker.sock", lambda _client: bool(over.wait(10))):  # type: ignore[arg-type]
        said = asked(root, 0.2)
        over.set()
    assert said.answer is None
    assert said.accepted
    assert "does not answer" in said.why


@pytest.mark.parametrize("line", [b"", b"not json\n", b"[]\n", b'{"result": 3}\n'])
def test_nonsense_is_not_an_answer(root: Path, line: bytes) -> None:
    with Server(root / "broker.sock", lambda client: client.sendall(line)):
        said = asked(root)
    assert said.answer is None
    assert said.accepted
    assert said.why


def test_an_error_is_raised_with_a_hint(root: Path) -> None:
    error = {"code": -32601, "message": "Unknown method"}
    with (
        Server(root / "broker.sock", answering({"id": 1, "error": error})),
        pytest.raises(BrokerUnavailable, match="Unknown method") as caught,
    ):
        asked(root)
    assert "restart" in caught.value.hint


def test_it_says_which_palace_it_means_unless_the_user_named_the_socket(root: Path) -> None:
    heard: list[dict[str, Any]] = []

    def refusing(client: socket.socket) -> None:
        heard.append(json.loads(client.makefile("rb").readline())["params"])
        client.sendall(b'{"error": {"code": %d, "message": "it serves /b."}}\n' % OTHER_PALACE)

    with Server(root / "broker.sock", refusing), pytest.raises(BrokerUnavailable, match="another broker") as caught:
        asked(root)
    assert "remove what no broker made" in caught.value.hint
    assert heard[0]["palace"]["path"] == str(root / "palace")
    named = context_of(root, MEMPALACE_BROKER=f"unix:{root}/other.sock")
    with Server(root / "other.sock", refusing), pytest.raises(BrokerUnavailable):
        ask_broker(named, "broker/status", {}, Deadline.after(Clock(), 5.0))
    assert heard[1] == {}


def test_nobody_there(root: Path) -> None:
    said = asked(root)
    assert (said.connect, said.answer, said.accepted) == (CONNECT_ENOENT, None, False)


def test_a_dead_socket(root: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(root / "broker.sock"))
    dead.close()
    said = asked(root)
    assert (said.connect, said.accepted) == (CONNECT_REFUSED, False)


def test_the_variable_is_binding(root: Path) -> None:
    assert socket_paths(context_of(root, MEMPALACE_BROKER="unix:/x/y.sock")) == ["/x/y.sock"]
    with pytest.raises(UsageError):
        socket_paths(context_of(root, MEMPALACE_BROKER="gopher://x"))
