"""Joining two pipes to a socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from mempalace_broker.cli.dial_stdio import join
from tests.proctools import eventually

BIG = 3_000_000
PATIENCE_S = 20.0


class Joined:
    """One end for the peer that talks through us (`us`, sending into `stdin`), one for the broker (`broker`)."""

    def __init__(self) -> None:
        self.broker, ours = socket.socketpair()
        self._read, self.stdin = os.pipe()
        self.stdout, write = os.pipe()
        self.broker.settimeout(PATIENCE_S)
        self.thread = threading.Thread(target=self._run, args=(ours.detach(), write))
        self.thread.start()

    def _run(self, sock: int, write: int) -> None:
        try:
            join(sock, self._read, write)
        finally:
            os.close(write)

    def heard(self) -> bytes:
        """All that comes out until the end."""
        with os.fdopen(self.stdout, "rb", closefd=False) as file:
            return file.read()

    def end(self) -> None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def close(self) -> None:
        """Close what the sending thread reads once it has ended: the next test's pipe may get the same number."""
        eventually(lambda: not [thread for thread in threading.enumerate() if "(_send)" in thread.name])
        os.close(self._read)


@pytest.fixture
def joined() -> Iterator[Joined]:
    made = Joined()
    yield made
    made.broker.close()
    for fd in (made.stdin, made.stdout):
        try:
            os.close(fd)
        except OSError:  # the test did
            continue
    made.end()
    made.close()


def test_it_begins_with_an_empty_line_and_passes_both_ways(joined: Joined) -> None:
    os.write(joined.stdin, b"ask\n")
    assert joined.broker.recv(100) == b"ask\n"
    joined.broker.sendall(b"answer\n")
    joined.broker.close()
    assert joined.heard() == b"\nanswer\n"
    joined.end()


def test_the_end_of_stdin_is_passed_on_and_answers_still_come(joined: Joined) -> None:
    os.write(joined.stdin, b"last\n")
    os.close(joined.stdin)
    assert joined.broker.makefile("rb").read() == b"last\n"
    joined.broker.sendall(b"answer\n")
    joined.broker.shutdown(socket.SHUT_WR)
    assert joined.heard() == b"\nanswer\n"
    joined.end()


def test_it_ends_when_nobody_reads_any_more(joined: Joined) -> None:
    os.close(joined.stdout)
    joined.end()


def test_much_in_both_directions_at_once_is_neither_lost_nor_a_deadlock(joined: Joined) -> None:
    there, back = os.urandom(BIG), os.urandom(BIG)
    got: list[bytes] = []

    def agent() -> None:
        view = memoryview(there)
        while view:
            view = view[os.write(joined.stdin, view) :]
        os.close(joined.stdin)

    def broker() -> None:
        joined.broker.sendall(back)
        got.append(joined.broker.makefile("rb").read())
        joined.broker.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=agent), threading.Thread(target=broker)]
    for thread in threads:
        thread.start()
    assert joined.heard() == b"\n" + back
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got == [there]
    joined.end()
