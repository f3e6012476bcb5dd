"""Whose program a connection over 127.0.0.1 comes from."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.system import loopback_peer
from mempalace_broker.system.loopback_peer import LoopbackPeer

NOBODY = 65534
CONNECT = """
import encodings.idna, os, socket, sys  # a later import would be of files that are not theirs to read
port, uid, way = sys.argv[1:]
os.setuid(int(uid))
connection = socket.socket(socket.AF_INET6 if way == "by IPv6" else socket.AF_INET)
if way == "from 127.0.0.2":
    connection.bind(("127.0.0.2", 0))
connection.connect(("::ffff:127.0.0.1" if way == "by IPv6" else "127.0.0.1", int(port)))
if way == "half-closed":
    connection.shutdown(socket.SHUT_WR)
sys.stdin.read()
"""
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def is_of_another_user(address: tuple[str, int], own_port: int) -> bool:
    return LoopbackPeer(address, ("127.0.0.1", own_port)).is_of_another_user


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(20)
        yield made


def test_our_own(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as ours:
        assert not is_of_another_user(ours.getsockname(), port)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux alone shows whose connection it is")
@pytest.mark.parametrize("way", ["plain", "half-closed", "by IPv6", "from 127.0.0.2"])
def test_another_user(way: str, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    argv = [sys.executable, "-S", "-c", CONNECT, str(port), str(NOBODY), way]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as theirs:
        connection, peer = listener.accept()
        with connection:
            asked = LoopbackPeer(peer, connection.getsockname())
            assert asked.is_of_another_user
            assert theirs.stdin is not None
            theirs.stdin.close()
            assert theirs.wait(20) == 0
            assert connection.recv(1) == b""
            assert not is_of_another_user(peer, port), "nobody is left to read an answer"
            assert asked.is_of_another_user, "the tables are read once"


@pytest.mark.parametrize(
    ("uid", "state", "foreign"),
    [(4711, "01", True), (4711, "05", True), (0, "01", False), (4711, "06", False), ("x", "01", False)],
)
def test_the_table(uid: object, state: str, foreign: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "tcp"
    monkeypatch.setattr(loopback_peer, "_TABLES", {str(table): b""})
    monkeypatch.setattr(sys, "byteorder", "little")
    assert not is_of_another_user(("127.0.0.1", 4660), 80), "it can't be read"
    row = f"   1: 0100007F:1234 0100007F:0050 {state} 00000000:00000000 00:00000000 00000000 {uid} 0 1\n"
    table.write_text(f"{HEADER}   0: 0100007F:1234 0100007F:0051 01 0:0 0:0 0 4712 0 1\n{row}\n")
    assert is_of_another_user(("127.0.0.1", 4660), 80) is foreign
    assert not is_of_another_user(("127.0.0.1", 4661), 80)
