from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mempalace_broker.errors import BrokerUnavailable, DeadlineExceeded, HandshakeRefused, UsageError
from mempalace_broker.route import tcp_addresses
from mempalace_broker.route.attempt import Connected, Failed, Waiting
from mempalace_broker.route.endpoint import TCP, Endpoint, parse
from mempalace_broker.route.tcp import ATTEMPTS, TcpRoute
from mempalace_broker.system.clock import Clock, Deadline
from tests.proctools import eventually, own_descriptors
from tests.tcptools import TOKEN, broker_like, connect, listener

OTHER = "d0" * 32


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_both_prove_themselves_and_the_conversation_begins(host: str) -> None:
    try:
        with listener(broker_like(then=b"hello\n"), "127.0.0.1" if host == "localhost" else host) as endpoint:
            port = endpoint.rpartition(":")[2]
            shown = f"[{host}]" if ":" in host else host
            with connect(f"tcp://{shown}:{port}", TOKEN) as sock:
                assert sock.recv(100) == b"hello\n"
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    except OSError as exc:
        if host == "::1":
            pytest.skip(f"no IPv6 here: {exc}")
        raise


def test_a_rogue_listener_gets_a_number_and_nothing_else() -> None:
    heard = bytearray()

    def serve(conn: socket.socket) -> None:
        answer = {"jsonrpc": "2.0", "id": 0, "result": {"nonce": "ab" * 32, "proof": "cd" * 32}}
        heard.extend(conn.recv(4096))
        conn.sendall(json.dumps(answer).encode() + b"\n")
        while data := conn.recv(4096):
            heard.extend(data)

    with (
        listener(serve) as endpoint,
        pytest.raises(HandshakeRefused, match="another token, or not your broker") as e,
    ):
        connect(endpoint, TOKEN)
    assert "mempalace-broker token" in e.value.hint
    assert heard.count(b"\n") == 1
    assert set(json.loads(heard)["params"]) == {"wire", "nonce"}
    assert TOKEN.encode() not in heard


def test_another_token() -> None:
    with listener(broker_like(OTHER)) as endpoint, pytest.raises(HandshakeRefused, match="does not know our token"):
        connect(endpoint, TOKEN)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"x" * 5000, b"\0\n"]
)
def test_something_else_listens_there(said: bytes) -> None:
    def serve(conn: socket.socket) -> None:
        conn.recv(4096)
        conn.sendall(said)
        conn.recv(4096)

    with listener(serve) as endpoint, pytest.raises(BrokerUnavailable, match="is not a mempalace-broker"):
        connect(endpoint, TOKEN)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=rf"at tcp://127.0.0.1:{port} \(Connection refused") as e:
            connect(f"tcp://127.0.0.1:{port}", TOKEN)
    assert "listens on" in e.value.hint


def test_it_takes_the_connection_and_says_nothing() -> None:
    started = time.monotonic()

    def serve(conn: socket.socket) -> None:
        while conn.recv(4096):
            pass

    with listener(serve) as endpoint, pytest.raises(DeadlineExceeded, match="did not prove itself in time"):
        connect(endpoint, TOKEN, 0.3)
    assert 0.2 < time.monotonic() - started < 5


def test_it_hangs_up_before_a_word_and_is_asked_again_a_few_times() -> None:
    calls: list[int] = []

    def serve(conn: socket.socket) -> None:
        calls.append(1)
        conn.recv(4096)

    with listener(serve) as endpoint, pytest.raises(BrokerUnavailable, match="hung up before it had proved itself"):
        connect(endpoint, TOKEN)
    assert len(calls) == ATTEMPTS


def test_the_second_try_may_be_the_good_one() -> None:
    calls: list[int] = []

    def serve(conn: socket.socket) -> None:
        calls.append(1)
        if len(calls) > 1:
            broker_like()(conn)

    with listener(serve) as endpoint:
        connect(endpoint, TOKEN).close()
    assert len(calls) == 2


def test_an_address_that_swallows_everything() -> None:
    """A full backlog drops the SYN: connect neither succeeds nor fails."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        name = full.getsockname()
        stuffing = [socket.socket() for _ in range(4)]
        try:
            for sock in stuffing:
                sock.setblocking(False)
                sock.connect_ex(name)
            with pytest.raises((BrokerUnavailable, DeadlineExceeded), match=r"no answer|did not prove"):
                connect(f"tcp://127.0.0.1:{name[1]}", TOKEN, 0.4)
        finally:
            for sock in stuffing:
                sock.close()


def test_no_step_ever_blocks() -> None:
    """Not even where the resolver hangs: nobody waits for the thread that asks it."""
    gate = threading.Event()
    patch = pytest.MonkeyPatch()
    real = tcp_addresses.resolve

    def slow(host: str, port: int, flags: int = 0) -> Any:
        if not flags:
            gate.wait(20)
        return real("127.0.0.1", port, flags) if not flags else real(host, port, flags)

    patch.setattr(tcp_addresses, "resolve", slow)
    try:
        with listener(broker_like()) as endpoint:
            there = parse(endpoint, "")
            route = TcpRoute(Endpoint(TCP, host="somewhere.test", port=there.port), TOKEN, _soon(20))
            started = time.monotonic()
            first = route.step()
            assert isinstance(first, Waiting)
            assert first.fd >= 0
            assert time.monotonic() - started < 10, "it waited for the resolver"
            gate.set()
            poller = select.poll()
            poller.register(first.fd, select.POLLIN)
            assert poller.poll(10_000)
            found = route.step()
            while isinstance(found, Waiting):
                select.select([found.fd] if found.fd >= 0 else [], [], [], found.seconds)
                found = route.step()
            assert isinstance(found, Connected)
            found.sock.close()
            assert found.endpoint == f"tcp://somewhere.test:{there.port}"
            gate.clear()
            late = TcpRoute(Endpoint(TCP, host="somewhere.test", port=1), TOKEN, _soon(0.0))
            failed = late.step()
            assert isinstance(failed, Failed)
            assert "looking up somewhere.test" in failed.error.message
    finally:
        gate.set()
        patch.undo()


def _soon(seconds: float) -> Deadline:
    return Deadline.after(Clock(), seconds)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(BrokerUnavailable, match=r"no address for no-such-host.invalid") as e:
        connect("tcp://no-such-host.invalid:1", TOKEN)
    assert "host-gateway" in e.value.hint


def test_without_a_token_or_a_port_nothing_is_tried() -> None:
    for route in (
        TcpRoute(parse("tcp://127.0.0.1:1", ""), "", _soon(5)),
        TcpRoute(Endpoint(TCP, host="127.0.0.1"), TOKEN, _soon(5)),
    ):
        found = route.step()
        assert isinstance(found, Failed)
        assert isinstance(found.error, UsageError)
        assert isinstance(route.step(), Failed)  # it stays spent


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux lists descriptors there")
def test_nothing_is_left_open() -> None:
    before = own_descriptors()
    for endpoint in ("tcp://127.0.0.1:1", "tcp://localhost:1"):
        for steps in range(3):
            route = TcpRoute(parse(endpoint, ""), TOKEN, _soon(5))
            for _ in range(steps):
                route.step()
            route.close()
            route.close()
    eventually(lambda: own_descriptors() <= before, what="the end of all look-ups")


CODE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from mempalace_broker.route.attempt import Connected, Waiting
from mempalace_broker.route.endpoint import parse
from mempalace_broker.system.clock import Clock, Deadline
began = time.perf_counter()
from mempalace_broker.route.tcp import TcpRoute
imported = time.perf_counter()
route = TcpRoute(parse(sys.argv[2], ""), os.environ["TOKEN"], Deadline.after(Clock(), 20))
while isinstance(found := route.step(), Waiting):
    time.sleep(min(found.seconds, 0.001))
assert isinstance(found, Connected), found.error
print((imported - began) * 1000, (time.perf_counter() - imported) * 1000, *sorted(sys.modules))
"""


def test_what_a_shim_imports_for_it() -> None:
    source = Path(__file__).resolve().parents[3] / "src"
    with listener(broker_like()) as endpoint:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CODE, str(source), endpoint],
            env={"TOKEN": TOKEN},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    imported, took, *modules = done.stdout.split()
    print(f"import {imported} ms, connect and prove {took} ms")
    forbidden = "argparse asyncio contextlib dataclasses enum hashlib _hashlib hmac inspect json logging pathlib re"
    more = "selectors signal socket subprocess threading typing encodings.idna uuid secrets random"
    assert not {*forbidden.split(), *more.split()} & set(modules)
