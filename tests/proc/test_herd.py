"""Many at once, and strangers: a hundred shims on a cold state root; another user at the socket."""

from __future__ import annotations

import os
import socket
import stat
import warnings
from pathlib import Path

import pytest

from tests.harness import World, eventually

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]
HERD = 100


def test_a_hundred_shims_on_a_cold_state_root_make_one_broker(world: World) -> None:
    shims = [world.shim() for _ in range(HERD)]
    asked = [shim.start_request("initialize", {"protocolVersion": "2025-06-18"}) for shim in shims]
    for shim, id_ in zip(shims, asked, strict=True):
        assert shim.wait_response(id_, 60)["result"]["serverInfo"]["name"] == "mempalace"
    calls = [shim.start_call("kg_stats") for shim in shims]
    for shim, id_ in zip(shims, calls, strict=True):
        assert "result" in shim.wait_response(id_, 60)
    eventually(lambda: world.brokers() == [world.broker().pid], what="one broker, any that lost the race gone")
    status = world.broker().status()
    assert len([s for s in status["sessions"] if s["client"].startswith("mp-shim")]) == HERD
    assert status["broker"]["epoch"] == 1, "nobody else owned the palace in between"
    assert len(world.owners()) == 1
    for shim in shims:
        shim.close_stdin()
    assert {shim.wait(30) for shim in shims} == {0}
    assert not any(shim.untaken() for shim in shims)
    eventually(lambda: not world.broker().status()["sessions"], what="all sessions to be gone")


def test_only_the_owner_gets_in(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can try as somebody else")
    shim = world.shim()
    shim.initialize()
    address = world.broker().record["endpoints"][0].removeprefix("unix:")
    for path in (address, str(world.state_root / "broker.json"), str(world.state("broker.log"))):
        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path
    for folder in (world.root, world.home, world.state_root):
        folder.chmod(0o755)
    assert as_nobody(address) == "Permission denied"
    Path(address).chmod(0o666)  # even a careless chmod opens nothing
    assert as_nobody(address) == "no answer"
    with socket.socket(socket.AF_UNIX) as mine:
        mine.settimeout(10)
        mine.connect(address)
        mine.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        assert b'"result"' in mine.recv(1000)


def as_nobody(address: str) -> str:
    """What another user gets at the socket: an answer, "no answer", or the system's refusal."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # newer Pythons warn of the harness's reader threads; the child needs none
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, _ask(address).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as file:
        return file.read().decode()


def _ask(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        try:
            sock.connect(address)
        except OSError as exc:
            return str(exc.strerror)
        try:
            sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            return sock.recv(1000).decode() or "no answer"
        except OSError:
            return "no answer"
