"""One relayed connection on real sockets: bytes, half-closes, resets, and back pressure."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi_devbox.expose import link
from pi_devbox.expose.link import Link, dial, is_self
from tests.proctools import eventually, free_port

WAIT_S = 10.0


@dataclass
class Pair:
    """Two ends with a Link between them.

    Attributes: client, server: what people and Studio hold. thread: of the link.
    """

    client: socket.socket
    server: socket.socket
    link: Link
    thread: threading.Thread

    def over(self) -> None:
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


def tcp_pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    one = socket.create_connection(listener.getsockname(), timeout=WAIT_S)
    other, _ = listener.accept()
    other.settimeout(WAIT_S)
    return one, other


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield linked(stack, listener)


def linked(stack: ExitStack, listener: socket.socket) -> Pair:
    client, near = tcp_pair(listener)
    far, server = tcp_pair(listener)
    for sock in (client, near, far, server):
        stack.enter_context(closing(sock))
    made = Link(near, far)
    thread = threading.Thread(target=made.run)
    thread.start()
    stack.callback(thread.join, WAIT_S)
    stack.callback(made.cut)
    return Pair(client, server, made, thread)


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


def break_off(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("first", ["client", "server"])
def test_one_direction_may_end_long_before_the_other(pair: Pair, first: str) -> None:
    early, late = (pair.client, pair.server) if first == "client" else (pair.server, pair.client)
    early.sendall(b"all I have to say")
    early.shutdown(socket.SHUT_WR)
    assert read_all(late) == b"all I have to say"
    for _ in range(3):
        late.sendall(b"still talking")
        assert early.recv(100) == b"still talking"
    late.close()
    assert early.recv(100) == b""
    pair.over()


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_is_not_an_orderly_end(pair: Pair, first: str) -> None:
    one, other = (pair.client, pair.server) if first == "client" else (pair.server, pair.client)
    one.sendall(b"half of a")
    assert other.recv(100) == b"half of a"
    break_off(one)
    with pytest.raises(ConnectionResetError):
        other.recv(100)
    pair.over()


def test_a_reset_after_its_own_end_is_noticed_though_nobody_speaks(pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    break_off(pair.client)
    pair.over()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        pair.server.sendall(b"too late")


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_reset_that_is_noticed_by_writing_is_none_the_less_one(pair: Pair, first: str) -> None:
    one, other = (pair.client, pair.server) if first == "client" else (pair.server, pair.client)
    one.sendall(b"half of a")
    assert other.recv(100) == b"half of a"
    fill(other)
    break_off(one)
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    pair.over()


def test_an_answer_to_a_request_that_was_not_read_to_its_end_arrives(pair: Pair) -> None:
    pair.client.sendall(b"x" * 1000)
    assert pair.server.recv(10)
    pair.server.sendall(b"413 too large")
    pair.server.shutdown(socket.SHUT_WR)
    assert read_all(pair.client) == b"413 too large"
    pair.server.close()  # with 990 unread bytes: a reset
    pair.client.close()
    pair.over()


def test_both_may_send_before_anyone_reads(pair: Pair) -> None:
    size = 32 << 20
    blob = bytes(range(256)) * (size // 256)
    got: dict[str, bytes] = {}

    def send(sock: socket.socket) -> None:
        sock.sendall(blob)
        sock.shutdown(socket.SHUT_WR)

    def read(name: str, sock: socket.socket) -> None:
        got[name] = read_all(sock)

    senders = [threading.Thread(target=send, args=(sock,)) for sock in (pair.client, pair.server)]
    readers = [threading.Thread(target=read, args=item) for item in (("client", pair.client), ("server", pair.server))]
    for threads in (senders, readers):
        for thread in threads:
            thread.start()
    for thread in senders + readers:
        thread.join(60)
    assert got == {"client": blob, "server": blob}
    pair.over()


def fill(sock: socket.socket) -> int:
    """Send until no byte is taken for a while; return the count."""
    sock.setblocking(False)
    sent, idle = 0, 0

    def stuck() -> bool:
        nonlocal sent, idle
        try:
            while True:
                sent += sock.send(b"s" * 65536)
                idle = 0
        except BlockingIOError:
            idle += 1
        return idle > 12  # the pauses of `eventually` grow to 0.1 s

    eventually(stuck, what="a sender that has to wait")
    sock.settimeout(WAIT_S)
    return sent


def test_who_does_not_read_holds_up_who_sends_and_nobody_else(pair: Pair) -> None:
    sent = fill(pair.server)
    pair.client.sendall(b"the other way is open")
    assert pair.server.recv(100) == b"the other way is open"
    pair.server.shutdown(socket.SHUT_WR)
    assert len(read_all(pair.client)) == sent


def test_what_waits_for_a_slow_reader_survives_the_end_of_all_else(pair: Pair) -> None:
    sent = fill(pair.client)
    pair.client.shutdown(socket.SHUT_WR)
    pair.server.shutdown(socket.SHUT_WR)
    assert pair.client.recv(1) == b""
    assert cpu_of(0.1) < 0.05
    assert len(read_all(pair.server)) == sent
    pair.over()


def cpu_of(seconds: float) -> float:
    """The processor seconds of this process in that time."""
    before = time.process_time()
    threading.Event().wait(seconds)
    return time.process_time() - before


def test_waiting_costs_nothing_in_whatever_state(pair: Pair) -> None:
    assert cpu_of(0.2) < 0.1
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    assert cpu_of(0.2) < 0.1
    fill(pair.server)
    assert cpu_of(0.2) < 0.1
    pair.server.shutdown(socket.SHUT_WR)
    assert cpu_of(0.2) < 0.1


def test_cut_ends_both_directions(pair: Pair) -> None:
    pair.link.cut()
    assert pair.client.recv(1) == b""
    assert pair.server.recv(1) == b""
    pair.over()


steps = st.lists(
    st.tuples(st.sampled_from(["client", "server"]), st.one_of(st.none(), st.binary(min_size=1, max_size=60_000))),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, small=st.sampled_from([1, 7, 16384]))
def test_whatever_is_said_arrives_in_order_and_then_the_end(steps: list[tuple[str, bytes | None]], small: int) -> None:
    before, link.SMALL = link.SMALL, small
    try:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            _converse(linked(stack, listener), steps)
    finally:
        link.SMALL = before


def _converse(pair: Pair, steps: list[tuple[str, bytes | None]]) -> None:
    ends = {"client": pair.client, "server": pair.server}
    said = {"client": b"", "server": b""}
    shut: set[str] = set()
    got: dict[str, bytes] = {}
    readers = [
        threading.Thread(target=lambda n, s: got.__setitem__(n, read_all(s)), args=item) for item in ends.items()
    ]
    for reader in readers:
        reader.start()
    for name, data in [*steps, ("client", None), ("server", None)]:
        if name in shut:
            continue
        if data is None:
            shut.add(name)
            ends[name].shutdown(socket.SHUT_WR)
        else:
            ends[name].sendall(data)
            said[name] += data
    for reader in readers:
        reader.join(WAIT_S)
    assert got == {"client": said["server"], "server": said["client"]}
    pair.over()


def refused(port: int) -> bool:
    """Whether nothing listens there."""
    try:
        dial(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_dial_does_not_take_itself_for_a_server() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        dial(port).close()
    eventually(lambda: refused(port), what="nobody there")
    with socket.socket() as caller:  # what the kernel does by chance, on purpose
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        caller.bind(("127.0.0.1", port))
        caller.connect(("127.0.0.1", port))
        assert caller.getsockname() == caller.getpeername()
        assert is_self(caller)
