"""The listener as its broker drives it, with a clock that stands still and a loop that only records calls."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mempalace_broker.broker.tcp import listener as tcp
from mempalace_broker.broker.tcp.address import Unavailable
from mempalace_broker.broker.tcp.listener import RETRY_S, TcpListener
from mempalace_broker.broker.tcp.port import last_port, usual_port
from mempalace_broker.protocol.record import DiscoveryRecord, encode
from mempalace_broker.settings_files import PrivateSettings
from mempalace_broker.system.token_file import replace_token, token_path
from tests.fakes.clock import FakeClock
from tests.proctools import eventually


class Loop:
    """What the gate asks of a loop."""

    def __init__(self) -> None:
        self.readers: set[int] = set()

    def add_reader(self, fd: int, *_: object) -> None:
        self.readers.add(fd)

    def remove_reader(self, fd: int) -> None:
        self.readers.discard(fd)

    def call_later(self, *_: object) -> Loop:
        return self

    def cancel(self) -> None:
        """A timer of a loop that has no time."""


class Bench:
    def __init__(self, root: Path, name: str, **env: str) -> None:
        self.root = str(root)
        self.loop = Loop()
        self.clock = FakeClock()
        self.revoked = 0
        self.listener = TcpListener(
            settings=PrivateSettings().broker({"MEMPALACE_BROKER_TCP": name, **env}),
            root=self.root,
            last_port=0,
            clock=self.clock,
            log=logging.getLogger("mempalace_broker.test"),
            admit=lambda sock, rest, address: None,
            revoked=self._revoke,
        )

    def _revoke(self) -> None:
        self.revoked += 1

    def start(self) -> None:
        self.listener.start(cast(Any, self.loop))

    def check(self, after: float = 2.0) -> bool:
        self.clock.move(after)
        return self.listener.check(cast(Any, self.loop))

    @property
    def warnings(self) -> str:
        return " ".join(entry["what"] for entry in self.listener.degraded())


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The interfaces of a machine."""
    known: dict[str, str] = {}

    def find(name: str) -> str:
        if name not in known:
            raise Unavailable(f"no {name}", "start it")
        return known[name]

    monkeypatch.setattr(tcp, "find_address", find)
    return known


@pytest.fixture
def bench(tmp_path: Path, addresses: dict[str, str]) -> Iterator[Bench]:
    made = Bench(tmp_path, "docker")
    yield made
    made.listener.close()
    assert not made.loop.readers


def test_off(tmp_path: Path) -> None:
    off = Bench(tmp_path, "")
    off.start()
    assert not off.check(100)
    assert (off.listener.endpoint, off.listener.token, off.listener.as_json()) == ("", "", None)
    assert os.listdir(tmp_path) == []


def test_an_address_that_comes_later(bench: Bench, addresses: dict[str, str]) -> None:
    bench.start()
    assert bench.listener.endpoint == ""
    assert "not listening on TCP (docker): no docker" in bench.warnings
    assert bench.listener.degraded()[0]["hint"] == "start it"
    addresses["docker"] = "127.0.0.1"
    assert not bench.check(RETRY_S - 3)
    assert bench.check(4)
    assert bench.listener.endpoint == f"tcp://127.0.0.1:{usual_port(bench.root)}"
    assert bench.warnings == ""
    assert bench.loop.readers


def test_an_address_that_changes_and_one_that_goes(bench: Bench, addresses: dict[str, str]) -> None:
    addresses["docker"] = "127.0.0.1"
    bench.start()
    port = bench.listener.endpoint.rpartition(":")[2]
    assert not bench.check(RETRY_S + 1)
    addresses["docker"] = "127.0.0.2"
    assert bench.check(RETRY_S + 1)
    assert bench.listener.endpoint == f"tcp://127.0.0.2:{port}"
    assert len(bench.loop.readers) == 1
    del addresses["docker"]
    assert bench.check(RETRY_S + 1)
    assert bench.listener.endpoint == ""
    assert "no docker" in bench.warnings
    assert not bench.loop.readers


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        made = Bench(tmp_path, "127.0.0.1", MEMPALACE_BROKER_TCP_PORT=str(taken.getsockname()[1]))
        made.start()
        assert "Address already in use" in made.warnings
    assert made.check(RETRY_S + 1)
    made.listener.close()


def test_a_port_that_moved_is_named(tmp_path: Path) -> None:
    """Whoever has the usual one may relay clients that name it."""
    usual = usual_port(str(tmp_path))
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", usual))
        squatter.listen(1)
        made = Bench(tmp_path, "127.0.0.1")
        made.start()
        assert f"port {usual} is taken by another process: listening on {made.listener.endpoint}" in made.warnings
        made.listener.close()


def test_any_is_named_as_exposed(tmp_path: Path) -> None:
    made = Bench(tmp_path, "any")
    made.start()
    assert "exposed" in made.warnings
    made.listener.close()


def test_a_new_token_counts_at_once(bench: Bench, addresses: dict[str, str]) -> None:
    addresses["docker"] = "127.0.0.1"
    bench.start()
    old = bench.listener.token
    assert not bench.check()
    new = replace_token(bench.root)
    assert bench.check()
    assert (bench.listener.token, bench.revoked) == (new, 1)
    assert old != new
    assert not bench.check()


def test_a_handshake_begun_with_the_old_token_is_cut_off(bench: Bench, addresses: dict[str, str]) -> None:
    addresses["docker"] = "127.0.0.1"
    bench.start()
    port = int(bench.listener.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        gate = bench.listener._gate
        assert gate is not None
        sock.settimeout(10)

        def at_the_gate() -> bool:
            gate._accept()
            return gate.waiting == 1

        eventually(at_the_gate, what="the connection at the gate")
        replace_token(bench.root)
        assert bench.check()
        assert gate.waiting == 0
        assert sock.recv(1) == b""


def test_a_token_that_was_removed_is_put_back(bench: Bench, addresses: dict[str, str]) -> None:
    addresses["docker"] = "127.0.0.1"
    bench.start()
    os.unlink(token_path(bench.root))
    assert not bench.check()
    assert Path(token_path(bench.root)).read_text().strip() == bench.listener.token
    assert bench.revoked == 0


def test_a_token_that_others_may_have_seen_shuts_the_door(bench: Bench, addresses: dict[str, str]) -> None:
    addresses["docker"] = "127.0.0.1"
    bench.start()
    os.chmod(token_path(bench.root), 0o644)
    assert bench.check()
    assert (bench.listener.token, bench.listener.endpoint, bench.revoked) == ("", "", 1)
    assert "others can read" in bench.warnings
    os.chmod(token_path(bench.root), 0o600)
    assert bench.check(RETRY_S + 1)
    assert bench.listener.endpoint
    assert bench.warnings == ""


@pytest.mark.parametrize(
    ("endpoints", "port"),
    [
        (["unix:/x", "tcp://172.17.0.1:21001"], 21001),
        (["tcp://[::1]:5"], 5),
        (["unix:/x"], 0),
        (["tcp://x:99999", "tcp://x:a", "tcp://x", "tcp://x:-1"], 0),
    ],
)
def test_the_port_of_the_last_broker(tmp_path: Path, endpoints: list[str], port: int) -> None:
    file = tmp_path / "broker.json"
    assert last_port(str(file)) == 0
    file.write_bytes(encode(DiscoveryRecord(record="ab", pid=1, endpoints=endpoints, palace={"path": "/x"})))
    assert last_port(str(file)) == port
