"""The premise of everything about kernel boundaries, on a real second kernel: what must not be trusted there."""

from __future__ import annotations

import fcntl
import json
import socket

import pytest

from tests.elsewhere import Side
from tests.harness import World
from tests.vm.conftest import INSIDE

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("vm")]  # one guest for all

_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    for kind in (fcntl.flock, fcntl.lockf):
        try:
            kind(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print("got")
        except OSError:
            print("busy")
"""
_CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
        print("connected")
    except OSError as exc:
        print(type(exc).__name__)
"""


def test_another_kernel_grants_the_same_locks_again(world: World, guest: Side) -> None:
    lock = world.state_root / "a.lock"
    lock.write_text("the same file")
    assert guest.must(["cat", f"{INSIDE}/a.lock"]) == "the same file"
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert guest.python(_LOCK, f"{INSIDE}/a.lock").split() == ["got", "got"]


def test_another_kernel_sees_the_socket_and_finds_nobody_there(world: World, guest: Side) -> None:
    """A living listener is refused exactly as a dead one: a refusal proves nothing."""
    path = world.state_root / "a.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert guest.python(_CONNECT, f"{INSIDE}/a.sock") == "ConnectionRefusedError\n"
    assert guest.python(_CONNECT, f"{INSIDE}/a.sock") == "ConnectionRefusedError\n"


def test_ids_of_processes_and_namespaces_mean_nothing_across(world: World, guest: Side) -> None:
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert guest.must(["cat", "/proc/sys/kernel/random/boot_id"]) != file.read()
    here, there = world.state_root.stat(), guest.must(["stat", "-c", "%d %i", INSIDE]).split()
    assert int(there[1]) == here.st_ino
    assert int(there[0]) != here.st_dev


def test_the_guest_knows_that_it_is_elsewhere_and_why(world: World, guest: Side) -> None:
    here = json.loads(guest.cli("status", "--json").stdout)["here"]
    assert here["locality"] == "other kernel"
    assert "virtiofs" in here["why"]
    findings = json.loads(guest.cli("doctor", "--json").stdout)["findings"]
    (locality,) = [finding for finding in findings if finding["what"] == "locality"]
    assert locality["detail"].startswith("other kernel")
    assert "virtiofs: another kernel owns these files" in locality["detail"]
    routes = {finding["what"] for finding in findings if finding["what"].startswith("route: ")}
    assert routes == {"route: ssh", "route: tcp", "route: direct"}
    assert world.brokers() == []
    assert not (world.palace / "broker-claims").exists(), "a client that only looks acquires nothing"
