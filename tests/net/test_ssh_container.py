"""Containers whose palace is another kernel's: agents there reach the host's broker over ssh, with the same
configuration as agents on the host. The container is made of namespaces, its network is a cable of its own, and the
shared folder is a FUSE mount, so that locks and sockets in it don't cross - as on a Mac.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import netbox
from tests.elsewhere import Side
from tests.harness import World
from tests.load import Load
from tests.net.road import session_env
from tests.net.sshd import HOST, Sshd, require_sshd
from tests.netbox import Box
from tests.proctools import OwnerSampler, eventually
from tests.rpcproc import RpcProcess

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]
INSIDE = f"{netbox.HOME}/.mempalace"
CONFIG = f"{netbox.HOME}/.ssh-local/config"
HERE, THERE = (f"10.97.{os.getpid() % 250}.{number}" for number in (1, 2))  # test runs beside each other
PATIENCE_S = 60.0

_GIVE_LOGIN = """
import os, sys
home, config, key, known, host, name = sys.argv[1:]
folder = os.path.join(home, ".ssh-local")
os.makedirs(folder, mode=0o700)
text = config.replace(name, "host", 1)
for file, body in (("config", text), ("key", key), ("known_hosts", known)):
    with open(os.path.join(folder, file), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        out.write(body)
"""


@pytest.fixture
def world(world: World) -> World:
    """A world whose palace is found by default, as in a container: no path is written down anywhere."""
    netbox.require_boxes()
    require_sshd()
    require_shares()
    (world.state_root / "config.json").write_text("{}")
    return world


def require_shares() -> None:
    """Skip where there can be no FUSE mount; in CI that is a failure."""
    if shutil.which("bindfs") is None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail("no bindfs (Debian: apt install bindfs)")
        pytest.skip("no bindfs (Debian: apt install bindfs)")


@contextlib.contextmanager
def shared(folder: Path, at: Path) -> Iterator[Path]:
    """The folder as it looks from another kernel: over FUSE."""
    at.mkdir()
    process = subprocess.Popen(["bindfs", "-f", "--no-allow-other", str(folder), str(at)], stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: os.path.ismount(at), what="the mount")
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True, timeout=20)
        process.kill()  # a container that just ended may hold the mount for seconds
        process.wait(20)


@contextlib.contextmanager
def container(world: World) -> Iterator[tuple[Side, Sshd]]:
    """One with ssh to the host, and what agents find in it by themselves."""
    with contextlib.ExitStack() as stack:
        seen = stack.enter_context(shared(world.state_root, world.root / "seen"))
        box = stack.enter_context(Box("devbox", {seen: INSIDE}))
        box.link(f"{HERE}/30", f"{THERE}/30")
        sshd = Sshd(world.root / "sshd", env=session_env(world), address=HERE)
        stack.callback(sshd.close)
        side = Side(world, box)
        login = sshd.config.read_text().replace(str(sshd.folder), f"{netbox.HOME}/.ssh-local")
        login += "  ControlPath /tmp/cm\n"
        known = sshd.known_hosts.read_text()
        side.python(_GIVE_LOGIN, netbox.HOME, login, sshd.key.read_text(), known, HERE, HOST)
        yield side, sshd


@contextlib.contextmanager
def one_owner(world: World) -> Iterator[OwnerSampler]:
    """At most one process has the palace open, at every sample."""
    with world.watch_owners(0.02) as watch:
        yield watch
    assert watch.most == 1, watch.worst


def started(side: World | Side) -> RpcProcess:
    """A shim that has initialized and called a tool."""
    shim = side.shim()
    shim.initialize(PATIENCE_S)
    shim.call_tool("kg_stats", PATIENCE_S)
    return shim


def bridges(side: Side) -> list[str]:
    """Processes of the container that are bridges."""
    words = "mempalace_broker.route.bridge"
    code = f"from tests.proctools import *; print(*running_module({words!r}, pids()))"
    return side.must(["env", f"PYTHONPATH={netbox.REPO}", sys.executable, "-c", code]).split()


def test_the_container_alone_then_with_the_host_then_the_host_alone(world: World) -> None:
    with one_owner(world) as watch, container(world) as (side, sshd):
        first = started(side)
        (broker,) = world.brokers()
        assert os.readlink(f"/proc/{broker}/ns/pid") == os.readlink("/proc/self/ns/pid"), "the broker is the host's"
        eventually(lambda: len(bridges(side)) == 1, what="one bridge")
        with Load(side, 2) as there:
            there.wait_writes(6)
            with Load(world, 2, first=2) as here:
                here.wait_writes(12)
                there.wait_writes(12)
        there.verify(world)
        here.verify(side)
        assert world.brokers() == [broker]
        first.finish()
        native = started(world)
        side.place.kill()  # type: ignore[attr-defined]
        eventually(lambda: not sshd.connections(), what="the end of the container's connection")
        native.call_tool("kg_stats")
        assert len(watch.seen) == 1


def test_the_host_first_then_twenty_agents_of_the_container_at_once(world: World) -> None:
    with one_owner(world), container(world) as (side, sshd):
        native = started(world)
        shims = [side.shim() for _ in range(20)]
        asked = [shim.start_request("initialize", {"protocolVersion": "2025-06-18"}) for shim in shims]
        for shim, id_ in zip(shims, asked, strict=True):
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        for shim, id_ in [(shim, shim.start_call("kg_stats")) for shim in shims]:
            assert "result" in shim.wait_response(id_, PATIENCE_S)
        eventually(lambda: len(bridges(side)) == 1, what="one bridge, those that lost a race gone")
        eventually(lambda: len(sshd.connections()) == 1, what="one connection, those that tried it gone")
        eventually(lambda: len(world.brokers()) == 1, what="one broker, those that lost a race gone")
        native.finish()


def test_the_users_control_master_of_the_container_is_used_and_left_alone(world: World) -> None:
    with one_owner(world), container(world) as (side, sshd):
        ssh = ["ssh", "-F", CONFIG]
        side.must([*ssh, "-fNT", "-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "host"])
        (sshd.folder / "authorized_keys").write_text("")  # nobody else gets in: as with a second factor
        shim = started(side)
        eventually(lambda: len(sshd.connections()) == 1, what="no connection but the master's")
        shim.finish()
        eventually(lambda: not bridges(side), what="the end of the bridge")
        side.must([*ssh, "-O", "check", "host"])
        left = side.must(["sh", "-c", "ls /root/.local/state/mempalace-broker/ssh/*"])
        assert left.split() == ["bridge.lock", "bridge.log", "start.lock"]
