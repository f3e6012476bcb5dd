"""One request and its answer on a socket: whole, cut off, too long, or never."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mempalace_broker.route.exchange import exchange
from mempalace_broker.system.clock import Clock, Deadline

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def soon(seconds: float = 10.0) -> Deadline:
    return Deadline.after(Clock(), seconds)


def test_a_line_for_a_line(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b'{"answer": 1}\n')
    assert exchange(ours, b"ask\n", soon()) == b'{"answer": 1}\n'
    assert theirs.recv(10) == b"ask\n"
    assert ours.fileno() >= 0, "it stays open"


def test_silence_ends_with_the_deadline(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"half a line")
    assert exchange(ours, b"ask\n", soon(0.05)) is None


def test_an_other_side_that_takes_nothing_ends_with_the_deadline(pair: Pair) -> None:
    assert exchange(pair[0], b"x" * (8 << 20), soon(0.05)) is None


def test_the_other_side_leaves(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"half a line")
    theirs.shutdown(socket.SHUT_WR)
    assert exchange(ours, b"ask\n", soon()) == b"half a line"


def test_an_answer_may_end_by_another_rule_and_has_a_limit(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"noise\npong\n")
    assert exchange(ours, b"ping\n", soon(), complete=lambda said: b"pong\n" in said) == b"noise\npong\n"
    theirs.sendall(b"noise\n" * 10)
    assert exchange(ours, b"ping\n", soon(), complete=lambda said: False, limit=20) == b"noise\n" * 10
