"""One guest for all tests of this folder; every test has a world of its own, and its palace in the guest."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import harness, netbox
from tests.elsewhere import Side
from tests.harness import World
from tests.net.sshd import Sshd, require_sshd, sshd
from tests.vm import machine as vm
from tests.vm.login import DOOR, give_login, name_command
from tests.vm.machine import Machine, Share

INSIDE = f"{netbox.HOME}/.mempalace"
SHARED = "/mnt/host"  # where the guest finds the folder of all worlds

# Everything that carries the world's mark, but not this; then the mount.
_LEAVE = """
import os, signal, subprocess, sys, time
mark, mount = os.fsencode(sys.argv[1]), sys.argv[2]
def left():
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        try:
            words = open(f"/proc/{pid}/environ", "rb").read() + open(f"/proc/{pid}/cmdline", "rb").read()
        except OSError:
            continue
        if mark in words:
            yield pid
end = time.monotonic() + 20
while pids := list(left()):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert time.monotonic() < end, pids
    time.sleep(0.1)
subprocess.run(["umount", mount], check=True)
"""


def require_machine() -> None:
    """Skip where there can be no guest; in CI that is a failure, unless dev.py says that it could not be made."""
    if lack := vm.lacking():
        why = os.environ.get("MPB_NO_VM", "")
        if os.environ.get("CI", "").lower() in {"1", "true"} and not why:
            pytest.fail(lack)
        pytest.skip(f"no second kernel: {why or lack}")
    if Path(__file__).is_relative_to("/tmp"):
        pytest.skip("the guest has a /tmp of its own: it does not see a checkout there")


def debris(world: World) -> list[str]:
    """What mempalace puts aside when it finds its files damaged."""
    marks = (".corrupt", ".drift", "quarantine")
    return [str(path) for path in world.state_root.rglob("*") if any(mark in path.name for mark in marks)]


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """The folder of all worlds, seen by the guest."""
    folder = Path(tempfile.mkdtemp(prefix="mpbs-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def host_sshd() -> Iterator[Sshd]:
    """A throwaway sshd of this machine; the guest has a door to it."""
    require_machine()
    require_sshd()
    folder = Path(tempfile.mkdtemp(prefix="mpbd-", dir="/tmp"))
    with sshd(folder / "ssh", env={"PATH": netbox.PATH}) as serving:
        yield serving
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def machine(shared: Path, host_sshd: Sshd) -> Iterator[Machine]:
    """The guest, booted."""
    with Machine([Share(shared, SHARED)], doors={DOOR: host_sshd.port}) as booted:
        yield booted


@pytest.fixture
def world(machine: Machine, shared: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world whose palace is found by default, in a folder that the guest sees too."""
    harness.require_engine("newest")
    with World("newest", parent=shared) as made:
        (made.state_root / "config.json").write_text("{}")
        yield made


@contextlib.contextmanager
def palace_in(machine: Machine, world: World, shared: Path) -> Iterator[Side]:
    """The guest's side of a world: the palace is where its user has it."""
    machine.run(["mkdir", "-p", INSIDE])
    side = Side(world, machine)
    side.must(["mount", "--bind", f"{SHARED}/{world.state_root.relative_to(shared)}", INSIDE])
    try:
        yield side
    finally:
        if machine.running:
            machine.resume()
            side.python(_LEAVE, world.root, INSIDE)


@pytest.fixture
def guest(machine: Machine, world: World, shared: Path) -> Iterator[Side]:
    """The common guest's side of the test's world."""
    with palace_in(machine, world, shared) as side:
        yield side


@pytest.fixture
def bridged(world: World, guest: Side, machine: Machine, host_sshd: Sshd) -> Side:
    """The guest's side with ssh to the host set up."""
    give_login(machine, host_sshd)
    name_command(machine, world.root / "as-user", "mempalace-broker", world.env)
    return guest
