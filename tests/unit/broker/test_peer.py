"""Where the peer of a unix socket runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.broker.peer import has_own_mounts, look_at_peer, origin_of
from mempalace_broker.system.kernel import LINUX
from mempalace_broker.system.unix_socket import PeerProcess

pytestmark = pytest.mark.skipif(not LINUX, reason="reads /proc")

# argv: socket, name of the process, what to do once connected
_CONNECT = """
import socket, sys
with open("/proc/self/comm", "w") as file:
    file.write(sys.argv[2])
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
if sys.argv[3] == "stay":
    sock.recv(1)
"""
_NEW_NAMESPACE = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


def judged(listener: socket.socket, *before: str, name: str = "python3", stays: bool = True) -> Origin:
    """Where a process seems to run that connects, started by the command `before`."""
    argv = [*before, sys.executable, "-c", _CONNECT, listener.getsockname(), name, "stay" if stays else "leave"]
    with subprocess.Popen(argv) as process:
        sock, _ = listener.accept()
        with sock:
            if not stays:
                process.wait()
            origin = origin_of(look_at_peer(sock))
        process.wait()
    return origin


def test_a_process_beside_us_is_the_hosts(listener: socket.socket) -> None:
    assert judged(listener) is Origin.HOST


@pytest.mark.parametrize("name", ["sshd", "sshd-session", "ssh", "dropbear"])
def test_who_forwards_for_ssh_is_a_guest(listener: socket.socket, name: str) -> None:
    assert judged(listener, name=name) is Origin.GUEST


def test_a_process_that_is_gone_is_a_guest(listener: socket.socket) -> None:
    """Its pid may be another process's by now."""
    assert judged(listener, stays=False) is Origin.GUEST


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_another_pid_namespace_is_a_guests(listener: socket.socket) -> None:
    assert judged(listener, *_NEW_NAMESPACE) is Origin.GUEST


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_from_inside_a_namespace_the_outside_is_a_guest(listener: socket.socket, tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "from mempalace_broker.broker.peer import look_at_peer, origin_of\n"
        "sock = socket.socket(socket.AF_UNIX); sock.bind(sys.argv[1]); sock.listen(); print('ready', flush=True)\n"
        "there, _ = sock.accept(); who = look_at_peer(there); print(who.pid, origin_of(who))\n"
    )
    path = str(tmp_path / "inside")
    with subprocess.Popen([*_NEW_NAMESPACE, sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            assert process.stdout.readline() == b"0 guest\n"


def test_what_is_not_known_is_a_guest() -> None:
    assert origin_of(PeerProcess()) is Origin.GUEST
    assert origin_of(PeerProcess(7)) is Origin.GUEST
    with socket.socket(socket.AF_INET) as sock:
        assert origin_of(look_at_peer(sock)) is Origin.GUEST


def test_only_a_containers_own_process_has_the_mounts_of_the_guest() -> None:
    assert has_own_mounts(PeerProcess(7, 2, "mp-shim"))
    assert not has_own_mounts(PeerProcess(7, 1, "mp-shim"))
    assert not has_own_mounts(PeerProcess(7, 2, "sshd"))
    assert not has_own_mounts(PeerProcess())
