"""One session against the others: what it sends costs them little time, the broker little memory, and no engine."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

from mempalace_broker.broker.http.eviction import MOST
from mempalace_broker.errors import INVALID_PARAMS, INVALID_REQUEST
from mempalace_broker.protocol.hello import HELLO, STATUS, WIRE_VERSION
from mempalace_broker.protocol.long_line import MAX_VALUES
from tests.harness import Broker, World, eventually
from tests.proctools import limits_of
from tests.rawpeer import RawPeer

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]

PING_S = 5.0  # of another session; without bounds it was 10 s, and this machine may be busy
MB = 1 << 20
MANY = 50
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


def request(id_: object, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode() + b"\n"


def head_of_a_guest(world: World) -> bytes:
    """The head of a POST, but for how its body is sent."""
    token = world.cli("token", "--http").stdout.strip().encode()
    said = b"Host: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token
    return b"POST /mcp HTTP/1.1\r\n" + said + b"\r\n"


def error_of(peer: RawPeer, id_: object) -> dict[str, Any]:
    """The error that answers a request, {} if it has a result."""
    sign = f'"id":{json.dumps(id_)},'
    lines = peer.wait(lambda lines: any(sign in line[:100] for line in lines), 120)
    answer = json.loads(next(line for line in lines if sign in line[:100]))
    found: dict[str, Any] = answer.get("error", {})
    return found


def peak_mb(broker: Broker) -> int:
    with open(f"/proc/{broker.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


@contextmanager
def worst_ping(broker: Broker) -> Iterator[list[float]]:
    """How long another session waits for its pings while the block runs."""
    times: list[float] = [0.0]
    over = threading.Event()

    def ping() -> None:
        with RawPeer(broker) as peer:
            while not over.is_set():
                began = time.monotonic()
                peer.send_bytes(request(len(times), "ping"))
                peer.wait_lines(len(times))
                times.append(time.monotonic() - began)
                time.sleep(0.01)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join(60)


def test_lines_of_60_mb_do_not_stop_the_others(broker: Broker) -> None:
    with worst_ping(broker) as times, RawPeer(broker) as peer:
        peer.send_bytes(b'{"id":"x","method":"m","params":{"a":[' + b"[]," * (20 * MB) + b"0]}}\n")
        peer.send_bytes(b'{"id":"y","method":"m","params":{"a":"' + b"\\n" * (30 * MB) + b'"}}\n')
        peer.send_bytes(request("last", "ping"))
        assert error_of(peer, "last") == {}
    assert max(times) < PING_S
    assert peak_mb(broker) < 250


def test_a_number_of_500_digits_is_refused_and_no_engine_dies_of_it(broker: Broker) -> None:
    pid = broker.engine_pid()
    with RawPeer(broker) as peer:
        peer.send_bytes(
            b'{"jsonrpc":"2.0","id":"%b","method":"%b","params":{"wire":%d,"session":"a","secret":"%b","connection":1%b}}\n'
            % (HELLO.encode(), HELLO.encode(), WIRE_VERSION, b"5" * 32, b"0" * 500)
        )
        assert error_of(peer, HELLO)["code"] == INVALID_PARAMS
    with RawPeer(broker) as peer:
        peer.send_bytes(b'{"jsonrpc":"2.0","id":1%b,"method":"ping"}\n' % (b"0" * 2000))
        assert error_of(peer, None)["code"] == INVALID_REQUEST
    assert broker.engine_pid() == pid


def test_too_many_values_are_refused_by_their_id(broker: Broker) -> None:
    with RawPeer(broker) as peer:
        peer.send_bytes(b'{"id":"mine","method":"ping","params":{"a":[' + b"1," * MAX_VALUES + b"1]}}\n")
        assert "values" in error_of(peer, "mine")["message"]


def test_connections_that_leak_lock_nobody_out_and_cost_no_palace(world: World) -> None:
    limit = 96

    with ExitStack() as stack:
        shim = world.shim()
        shim.initialize()
        broker = world.broker()
        engine = broker.engine_pid()
        _, hard = limits_of(broker.pid, resource.RLIMIT_NOFILE, (limit, limit))
        assert hard >= limit
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2 * limit)]
        path = next(end for end in broker.record["endpoints"] if end.startswith("unix:")).removeprefix("unix:")
        for sock in silent:
            sock.setblocking(False)
            try:
                sock.connect(path)
            except BlockingIOError:  # the broker's queue is full
                time.sleep(0.05)
        os.kill(engine, signal.SIGKILL)
        assert shim.call_tool("kg_add", subject="a", predicate="is", object="b", timeout=60)["success"]
        assert broker.running
    eventually(lambda: len(os.listdir(f"/proc/{broker.pid}/fd")) < limit // 2, what="the end of the connections")
    assert broker.engine_pid() != engine
    assert "fenced" not in world.log()
    assert world.log().count("too many files and connections were open") == 1, "however many knocked"
    assert "Traceback" not in world.log()


def test_with_as_many_connections_as_there_may_be_status_and_stop_still_work(world: World) -> None:
    with ExitStack() as stack:
        world.shim().initialize()
        broker = world.broker()
        limits_of(broker.pid, resource.RLIMIT_NOFILE, (64, 64))
        peers = []
        for _ in range(40):
            peers.append(stack.enter_context(RawPeer(broker)))
            peers[-1].send_bytes(request("mine", "ping"))  # at once: one that is silent for 1 s loses its place
        answers = [peer.wait_lines(1)[0] for peer in peers]
        refused = ["takes no more" in line for line in answers]
        assert sum(not one for one in refused) == 27, "with the shim an eighth less than 32"
        late = stack.enter_context(RawPeer(broker))
        late.send_bytes(request("first", STATUS))
        assert error_of(late, "first") == {}
        late.send_bytes(request("second", "ping"))
        assert "takes no more" in late.wait_lines(2)[1]
        assert len(broker.status()["sessions"]) == 28
        assert world.cli("stop", "--now").returncode == 0


def test_tiny_lines_on_many_connections_cost_little_memory_and_hold_up_nobody(broker: Broker) -> None:
    path = next(end for end in broker.record["endpoints"] if end.startswith("unix:")).removeprefix("unix:")
    with ExitStack() as stack, worst_ping(broker) as times:
        for _ in range(100):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(path)
            sock.setblocking(False)
            with suppress(BlockingIOError):  # it sends what the kernel takes, and reads no answer
                while True:
                    sock.send(b"xxx\n" * MB)
        eventually(lambda: len(times) > MANY, 60, "answers to pings")
    assert max(times) < PING_S
    assert peak_mb(broker) < 150


def test_neither_strangers_nor_guests_hold_up_the_sessions_over_http(world: World, broker: Broker) -> None:
    head, port = head_of_a_guest(world), broker.http_port()
    tiny = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"2\r\n  \r\n" * 100_000
    small = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000

    def read(sock: socket.socket) -> None:
        with suppress(OSError):
            while sock.recv(MB):
                pass

    def flood(sock: socket.socket, what: bytes) -> None:
        with suppress(OSError):  # it is closed, by the broker or at the end
            while True:
                sock.sendall(what)

    with ExitStack() as stack:
        for what in [small] * 4 + [tiny] * 4:
            sock = socket.create_connection(("127.0.0.1", port))
            for thread in (
                threading.Thread(target=read, args=(sock,)),
                threading.Thread(target=flood, args=(sock, what)),
            ):
                thread.start()
                stack.callback(thread.join, 60)
            stack.callback(sock.close)
            stack.callback(sock.shutdown, socket.SHUT_RDWR)
        with worst_ping(broker) as times:
            eventually(lambda: len(times) > MANY, 60, "answers to pings")
    assert max(times) < PING_S


def test_a_guest_that_takes_all_connections_keeps_no_program_of_the_user_out(world: World, broker: Broker) -> None:
    head, address = head_of_a_guest(world), ("127.0.0.1", broker.http_port())
    token = next(world.private.rglob("hub/token")).read_text(encoding="ascii").strip()
    over = threading.Event()

    def connect_again_and_again() -> None:
        silent: deque[socket.socket] = deque()
        while not over.is_set():
            with suppress(OSError):
                silent.append(socket.create_connection(address))
            if len(silent) > MOST:
                silent.popleft().close()
        for sock in silent:
            sock.close()

    thread = threading.Thread(target=connect_again_and_again)
    with ExitStack() as stack:
        for _ in range(MOST):
            sock = stack.enter_context(socket.create_connection(address))
            sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(PING) + PING)
            assert sock.recv(MB).startswith(b"HTTP/1.1 200")
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(over.set)
        for _ in range(MANY):
            with closing(http.client.HTTPConnection(*address, timeout=60)) as client:
                about = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                client.request("POST", "/mcp", PING, about)
                assert client.getresponse().status == 200
