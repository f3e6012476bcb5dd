"""Whatever names clients give themselves, no terminal and no reader of the log obeys them."""

from __future__ import annotations

import json

import pytest

from mempalace_broker.protocol.palace import PalaceIdentity
from tests.harness import World, eventually
from tests.terminal import Terminal

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]

EVIL = "\x1b]0;TITLE\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07\r\n2026-01-01T00:00:00.000 INFO all is well \u202eevil\x9b31m"
OBEYED = [
    b"\x1b]",
    b"\x1b[2J",
    b"\x07",
    b"\xc2\x9b",
    "\u202e".encode(),
    b"\r\n2026-01-01T00:00:00.000 INFO all is well",
]


def on_terminal(world: World, *words: str) -> bytes:
    """What a command shows on a terminal."""
    terminal = Terminal("mempalace-broker", *words, env={**world.env, "TERM": "xterm-256color"})
    terminal.ended()
    return terminal.raw


def test_names_and_reasons_of_clients(world: World) -> None:
    shim = world.shim()
    info = {"name": EVIL, "version": "1"}
    shim.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info})
    broker = world.broker()
    eventually(lambda: broker.status()["sessions"][0]["agent"], what="the session's name")
    shown = on_terminal(world, "status")
    assert rb"\x1b]0;TITLE" in shown, "it is there, but only to be read"
    broker.admin("broker/stop", {"mode": "now", "reason": EVIL * 20})
    shim.close_stdin()
    eventually(lambda: not broker.running, what="the broker's end")
    shown += on_terminal(world, "logs") + on_terminal(world, "status") + on_terminal(world, "doctor")
    assert [word for word in OBEYED if word in shown] == []
    assert not any(line.startswith("2026-01-01") for line in world.log().splitlines())
    assert not any(len(line) > 2000 for line in world.log().splitlines())


def test_records_of_others_and_log_files_in_the_root(world: World) -> None:
    identity = PalaceIdentity(str(world.palace), EVIL, EVIL).as_json()
    record = {
        "schema": 1,
        "pid": 7,
        "endpoints": [f"unix:/{EVIL}"],
        "palace": identity,
        "host": EVIL,
        "started_by": EVIL,
    }
    (world.state_root / "broker.json").write_text(json.dumps(record))
    (world.state_root / "broker.log").write_text(EVIL)
    (world.state_root / "broker.toml").write_text(f"[{json.dumps(EVIL)}]\nx = 1\n")
    shown = on_terminal(world, "status") + on_terminal(world, "doctor")
    world.cli("ensure")
    shown += on_terminal(world, "doctor") + on_terminal(world, "logs") + on_terminal(world, "status")
    assert [word for word in OBEYED if word in shown] == []
