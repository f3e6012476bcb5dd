"""Under every name that a broker, its clients and its commands open, every wrong kind of file.

None is followed, written to or waited for, no command hangs or crashes, and the error names what is in the way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker import errors
from tests.harness import World, eventually
from tests.planted import plant

# every name that strace shows below the state root for a start, a running broker, and each command
LEASES = "palace/broker-claims"
NAMES = [
    *("broker.json", "broker.sock", "broker.start.lock", "palace/broker.lock", "palace/engine.lock", "broker.toml"),
    *(LEASES, f"{LEASES}/000000000001", f"{LEASES}/ask-000000000001-9f2c01ab", f"{LEASES}/gone-000000000001-41"),
    *("broker-token", "broker.journal", "broker.journal.1", "broker-index", "broker-exit.json", "broker-answers.json"),
    *("broker.log", "broker.log.1"),
]
KINDS = ["link", "dangling link", "loop", "fifo", "socket", "folder", "device", "empty", "sparse", "unreadable"]
KINDS += ["stranger's", "second name"]
SAMPLE = [
    *(("broker.sock", "folder", True), ("broker.json", "folder", False)),
    *(("broker.start.lock", "fifo", False), ("broker-token", "sparse", True)),
]
WHOLE = [(name, kind, running) for name in NAMES for kind in KINDS for running in (False, True)]
SLOW = [pytest.mark.slow, pytest.mark.timeout(600)]
CELLS = [pytest.param(*cell, marks=[] if cell in SAMPLE else SLOW) for cell in WHOLE]
NEED_ROOT = {"device", "stranger's"}
IN_ORDER = {errors.EXIT_OK, errors.EXIT_NOT_RUNNING, errors.EXIT_FINDINGS}
REFUSED = {errors.EXIT_UNAVAILABLE, errors.EXIT_STATE_ROOT, errors.EXIT_HELD}
SECRET = "HOSTSECRET"
PATIENCE_S = 60.0


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose broker finds no engine, which is all the same to these files, and starts in no time."""
    with World(None, env={"MEMPALACE_BROKER_ENGINE": "/nonexistent/python"}) as world:
        world.settings.write_text('[broker]\ntcp = "127.0.0.1"\n')
        world.palace.mkdir(mode=0o700)
        yield world


def command(world: World, *args: str) -> subprocess.CompletedProcess[str]:
    done = world.cli(*args, timeout=PATIENCE_S)
    assert done.returncode in IN_ORDER | REFUSED, (args, done.stderr)
    assert "Traceback" not in done.stderr, args
    assert SECRET not in done.stdout + done.stderr, args
    return done


def clear(path: Path) -> None:
    """As a person does who was told to remove it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


@pytest.mark.parametrize(("name", "kind", "running"), CELLS)
def test_a_wrong_kind_of_file(world: World, name: str, kind: str, running: bool) -> None:
    if kind in NEED_ROOT and os.geteuid() != 0:
        pytest.skip("only root can make one")
    secret, path = world.root / "secret", world.state_root / name
    secret.write_text(SECRET)
    if running:
        assert command(world, "ensure").returncode == errors.EXIT_OK
    clear(path)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    plant(path, kind, secret)
    if running:
        eventually(lambda: command(world, "status").returncode == errors.EXIT_OK, what="a broker that can be reached")
    started = command(world, "ensure")
    found = command(world, "doctor")
    if started.returncode != errors.EXIT_OK:
        assert path.name in started.stderr
        assert path.name in found.stdout, "doctor names what is in the way"
    for args in (("status",), ("stop",), ("take-over", "--yes")):
        command(world, *args)
    if command(world, "ensure").returncode != errors.EXIT_OK:
        clear(path)
        assert command(world, "ensure").returncode == errors.EXIT_OK
    assert command(world, "stop", "--now").returncode == errors.EXIT_OK
    if kind == "second name":
        return  # of a file that the guest can write to by that other name
    assert secret.read_text() == SECRET
    assert not (world.root / "none").exists(), "made through a link"
    files = (file for file in world.state_root.rglob("*") if file.is_file() and not file.is_symlink())
    assert not [file for file in files if file.stat().st_size < 1 << 20 and SECRET in file.read_text(errors="replace")]
