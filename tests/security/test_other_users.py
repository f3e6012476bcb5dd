"""Other users of the machine: what they put under our names first, and what they may write to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mempalace_broker import errors
from tests.harness import World
from tests.planted import LISTEN, STRANGER
from tests.proctools import eventually

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else, or mount")


def long_palace(world: World) -> Path:
    return world.root / ("x" * 100) / "palace"


def unix_path(world: World, palace: Path) -> str:
    record = (palace.parent / "broker.json").read_text(encoding="utf-8")
    return record.split('"unix:')[1].split('"')[0]


@pytest.fixture
def private_tmp() -> list[str]:
    """Runs a command with a /tmp of its own, in which our own files can still be seen."""
    script = 'mount --make-rprivate / && mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def test_a_long_path_needs_no_name_in_tmp(world: World) -> None:
    palace = long_palace(world)
    with world.shim("--palace", str(palace)) as shim:
        shim.initialize()
        assert shim.call_tool("kg_stats")
    assert unix_path(world, palace) == str(palace.parent / "broker.sock")
    done = world.cli("status", "--palace", str(palace))
    assert done.returncode == errors.EXIT_OK, done.stderr
    assert world.cli("stop", "--palace", str(palace)).returncode == errors.EXIT_OK


@needs_root
def test_whoever_has_the_root_at_a_short_path_reaches_the_same_broker(world: World, private_tmp: list[str]) -> None:
    palace, short = long_palace(world), world.root / "short"
    short.mkdir()
    with world.shim("--palace", str(palace)) as outside:
        outside.initialize()
        assert outside.call_tool("kg_add", subject="ada", predicate="wrote", object="program")
        program = world.program("mp-shim")
        argv = [*private_tmp, str(palace.parent), str(short), program, "--palace", str(short / "palace")]
        inside = world.spawn(argv, env={"MEMPALACE_BROKER_NO_SPAWN": "1"})
        inside.initialize()
        assert inside.call_tool("kg_query", entity="ada")["facts"]


@needs_root
def test_a_listener_of_another_user_hears_nothing_and_keeps_nobody_out(world: World) -> None:
    palace, root = world.palace, world.state_root
    palace.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = root / "broker.sock"
    os.chmod(root, 0o777)  # a moment ago anybody could write here
    for folder in name.parents:
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to(world.root):
            folder.chmod(folder.stat().st_mode | 0o011)
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(name), str(STRANGER)], stdout=subprocess.PIPE, text=True
    ) as rogue:
        try:
            assert rogue.stdout is not None
            assert rogue.stdout.readline() == "ready\n"
            refused = world.cli("ensure")
            assert refused.returncode == errors.EXIT_STATE_ROOT
            assert f"chmod go-w {root}" in refused.stderr
            os.chmod(root, 0o711)
            shim = world.shim()
            shim.initialize()
            assert shim.call_tool("kg_stats")
            assert name.stat().st_uid == os.getuid()
        finally:
            rogue.kill()
        assert set(rogue.stdout.read().splitlines()) == {"heard b''"}, "dialled, and left without a word"


@needs_root
def test_the_note_of_a_broker_that_was_stopped_leads_to_no_stranger(world: World) -> None:
    """Version 0.1.0 left there the name of a socket in /tmp, which anybody can make once its broker is gone."""
    assert world.cli("ensure").returncode == errors.EXIT_OK
    assert world.cli("stop").returncode == errors.EXIT_OK
    open_folder = world.root / "tmp"
    open_folder.mkdir()
    for folder in (world.root, open_folder):
        folder.chmod(0o777 if folder == open_folder else 0o711)
    name, lock = open_folder / "key.sock", world.palace / "broker.lock"
    note = json.loads(lock.read_bytes())
    lock.write_text(json.dumps({**note, "endpoint": f"unix:{name}"}), encoding="utf-8")
    argv = [sys.executable, "-c", LISTEN, str(name), str(STRANGER)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as rogue:
        try:
            assert rogue.stdout is not None
            assert rogue.stdout.readline() == "ready\n"
            shim = world.shim()
            shim.initialize()
            assert shim.call_tool("kg_stats")
            assert unix_path(world, world.palace) == str(world.state_root / "broker.sock")
        finally:
            rogue.kill()
        assert set(rogue.stdout.read().splitlines()) <= {"heard b''"}


def test_a_name_that_is_taken_away_is_bound_again_only_where_nobody_else_can_write(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("kg_stats")
    os.chmod(world.state_root, 0o777)
    name = world.state_root / "broker.sock"
    name.unlink()
    try:
        with socket.socket(socket.AF_UNIX) as rogue:
            rogue.bind(str(name))
            eventually(lambda: "other users can write" in world.log() or None, what="the refusal to bind")
    finally:
        os.chmod(world.state_root, 0o700)
