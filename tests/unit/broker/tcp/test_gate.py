"""The gate with a real loop and real sockets, and one listener that runs out of descriptors."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from mempalace_broker.broker.tcp import gate as tcpgate
from mempalace_broker.broker.tcp.gate import MOST, Gate
from mempalace_broker.broker.tcp.refusals import Refusals
from mempalace_broker.protocol.tcp_auth import AuthState, ClientSide
from tests.proctools import PATIENCE_S

TOKEN = "77" * 32


class Poor(socket.socket):
    """A listener whose process has no descriptors left, for the first `failures` times."""

    failures = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class House:
    """A gate on the loopback address, who got in, and what was refused."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.listener = Poor()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(200)
        self.listener.setblocking(False)
        self.guests: list[tuple[socket.socket, bytes, str]] = []
        self.mine: list[socket.socket] = []
        self.tally = Refusals(loop.time, lambda line: None)
        self.gate = Gate(
            self.listener,
            loop=loop,
            token=lambda: TOKEN,
            admit=lambda sock, rest, address: self.guests.append((sock, rest, address)),
            refusals=self.tally,
            log=logging.getLogger("mempalace_broker.test"),
        )
        self.where = self.listener.getsockname()

    def client(self) -> socket.socket:
        sock = socket.create_connection(self.where, 10)
        sock.setblocking(False)
        self.mine.append(sock)
        return sock

    def close(self) -> None:
        self.gate.close()
        for sock in self.mine + [guest[0] for guest in self.guests]:
            sock.close()


async def until(done: Callable[[], bool]) -> None:
    """Let the loop go on until `done()`."""
    async with asyncio.timeout(PATIENCE_S):
        while not done():  # noqa: ASYNC110 - no event says that another socket's bytes were read
            await asyncio.sleep(0.001)


def run(story: Callable[[House], Awaitable[None]]) -> None:
    async def tell() -> None:
        house = House(asyncio.get_running_loop())
        try:
            await story(house)
        finally:
            house.close()

    asyncio.run(tell())


async def prove(sock: socket.socket, behind: bytes = b"", piece: int = 4096) -> ClientSide:
    loop = asyncio.get_running_loop()
    side = ClientSide(TOKEN, os.urandom(32), sock.getpeername()[1])
    say = side.start()
    while side.state != AuthState.PROVED:
        for at in range(0, len(say), piece):
            await loop.sock_sendall(sock, say[at : at + piece])
        say = side.feed(await loop.sock_recv(sock, 4096))
        say += behind if say else b""
        assert side.state != "failed", side.text
    return side


def gone(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcpgate, "_NO_ROOM_PAUSE_S", 0.05)
    monkeypatch.setattr(tcpgate, "HANDSHAKE_S", 0.3)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_in_with_what_was_said_behind_the_proof(piece: int) -> None:
    async def story(house: House) -> None:
        await prove(house.client(), b'{"id":1}\n{"hal', piece)
        await until(lambda: bool(house.guests))
        sock, rest, address = house.guests[0]
        late = b"" if rest.endswith(b"hal") else sock.recv(100)
        assert (rest + late, address) == (b'{"id":1}\n{"hal', "127.0.0.1")
        assert house.gate.waiting == 0

    run(story)


def test_who_is_dropped_where_there_is_no_room() -> None:
    async def story(house: House) -> None:
        speaker = house.client()  # the oldest, but it has said its first line
        speaker.sendall(ClientSide(TOKEN, os.urandom(32), 1).start())
        await until(lambda: house.gate.waiting == 1)
        silent = []
        for number in range(MOST - 2):
            silent.append(house.client())
            await until(lambda wanted=number + 2: house.gate.waiting == wanted)  # type: ignore[misc]  # bound now
        refused = house.client()
        refused.sendall(b"GET / HTTP/1.1\r\n")
        await until(lambda: house.tally.totals.get("garbage") == 1)
        house.client()
        await until(lambda: gone(refused))
        assert not any(map(gone, silent))
        house.client()
        await until(lambda: gone(silent[0]))
        assert not any(map(gone, silent[1:]))
        answer = await asyncio.get_running_loop().sock_recv(speaker, 4096)
        assert json.loads(answer)["result"]["proof"]
        assert house.gate.waiting == MOST
        await prove(house.client())
        assert len(house.guests) == 1
        assert house.tally.totals["crowded out"] == 2

    run(story)


@pytest.mark.usefixtures("quick")
def test_no_descriptors_left_and_some_again() -> None:
    async def story(house: House) -> None:
        house.listener.failures = 1
        early = house.client()
        await until(lambda: house.tally.totals.get("not accepted (Too many open files)") == 1)
        await prove(early)
        await until(lambda: len(house.guests) == 1)

    run(story)


@pytest.mark.usefixtures("quick")
def test_time_runs_out() -> None:
    async def story(house: House) -> None:
        silent, stalled = house.client(), house.client()
        stalled.sendall(ClientSide(TOKEN, os.urandom(32), 1).start())
        await until(lambda: house.gate.waiting == 2)
        await until(lambda: house.gate.waiting == 0)
        assert house.tally.totals == {"silent": 1, "too slow": 1}
        assert gone(silent)

    run(story)


def test_all_are_sent_away_at_the_end() -> None:
    async def story(house: House) -> None:
        one, two = house.client(), house.client()
        two.sendall(b"nonsense\n")
        await until(lambda: house.gate.waiting == 2)
        house.gate.close()
        house.gate.close()
        await until(lambda: gone(one) and gone(two))
        assert house.gate.waiting == 0

    run(story)
