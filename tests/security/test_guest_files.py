"""Whose files a guest's mine and sync may read: what both sides share, found out by the broker, and nothing else."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mempalace_broker import errors
from mempalace_broker.cli.ssh_command import VARIABLE
from mempalace_broker.protocol.hello import PROOF_PREFIX
from tests import netbox
from tests.elsewhere import Side
from tests.harness import World
from tests.netbox import Box
from tests.rpcproc import RpcProcess

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]
PATIENCE_S = 90.0
_FILLER = "The north gate of the harbour is closed in winter, and the ferry leaves from the south quay. " * 4
_RAW = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    params = {"name": "mempalace_mine", "arguments": {"source": sys.argv[2]}}
    sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode() + b"\\n")
    print(sock.makefile().readline())
"""


@pytest.fixture
def world(world: World) -> World:
    """A world with a workspace, and with a secret that a link in the workspace leads to."""
    for folder, text in (
        ("ws", "The lighthouse keeper feeds nine cats."),
        ("secret", "TOPSECRET: vault code 8841."),
    ):
        (world.root / folder).mkdir()
        (world.root / folder / "notes.md").write_text(f"# Notes\n{text} {_FILLER}")
    (world.root / "ws" / "link.md").symlink_to(world.root / "secret" / "notes.md")
    (world.root / "ws" / "folder").symlink_to(world.root / "secret")
    (world.root / "ws" / ".gitignore").symlink_to(world.root / "secret" / "notes.md")
    return world


def mine(client: RpcProcess, source: object) -> dict[str, Any]:
    """The whole answer."""
    return client.request("tools/call", {"name": "mempalace_mine", "arguments": {"source": source}}, PATIENCE_S)


def refused(client: RpcProcess, source: object) -> str:
    answer = mine(client, source)
    assert answer.get("error", {}).get("code") == errors.INVALID_PARAMS, answer
    return str(answer["error"]["message"])


def found(client: RpcProcess, query: str) -> str:
    return str(client.call_tool("search", PATIENCE_S, query=query, limit=20))


def mined_and_no_more(client: RpcProcess, source: str) -> None:
    answer = mine(client, source)
    assert "error" not in answer, answer
    assert "lighthouse" in found(client, "lighthouse keeper cats")
    assert "8841" not in found(client, "TOPSECRET vault code")


def test_a_restricted_key_reads_no_file_of_the_host(world: World) -> None:
    program = world.program("mempalace-broker")
    argv = [program, "ssh-command", "--state-root", str(world.state_root)]
    key = world.spawn(argv, env={VARIABLE: "mempalace-broker dial-stdio"})
    for folder in ("secret", "ws", "ws/folder", "ws/../secret", "."):
        assert "guest_folders" in refused(key, f"{world.root}/{folder}")
    refused(key, "~/.ssh")
    refused(key, ["/etc"])
    answer = key.request("tools/call", {"name": "mempalace_sync", "arguments": {"project_dir": f"{world.root}/secret"}})
    assert answer["error"]["code"] == errors.INVALID_PARAMS
    assert "8841" not in found(key, "TOPSECRET vault code")


def test_a_folder_that_the_user_named_and_no_link_that_leads_out(world: World) -> None:
    world.settings.write_text(f'[broker]\nguest_folders = ["{world.root}/ws"]\n')
    program = world.program("mempalace-broker")
    argv = [program, "ssh-command", "--state-root", str(world.state_root)]
    key = world.spawn(argv, env={VARIABLE: "mempalace-broker dial-stdio"})
    mined_and_no_more(key, f"{world.root}/ws")
    refused(key, f"{world.root}/ws/folder")
    refused(key, f"{world.root}/secret")


def test_a_configuration_that_is_a_link_tells_nothing(world: World) -> None:
    world.settings.write_text(f'[broker]\nguest_folders = ["{world.root}/ws"]\n')
    (world.root / "secret" / "key.yaml").write_text("TOPSECRET: [unbalanced\n  - {{ TOPSECRET\n")
    (world.root / "ws" / "mempalace.yaml").symlink_to(world.root / "secret" / "key.yaml")
    program = world.program("mempalace-broker")
    argv = [program, "ssh-command", "--state-root", str(world.state_root)]
    key = world.spawn(argv, env={VARIABLE: "mempalace-broker dial-stdio"})
    assert "TOPSECRET" not in str(mine(key, f"{world.root}/ws"))


def test_over_tcp_a_shim_proves_its_folder_and_leaves_nothing_there(world: World) -> None:
    world.settings.write_text('[broker]\ntcp = "127.0.0.1"\n')
    assert world.cli("ensure").returncode == 0
    record = world.record() or {}
    endpoint = next(end for end in record["endpoints"] if end.startswith("tcp://"))
    shim = world.shim(env={"MEMPALACE_BROKER": endpoint})
    shim.initialize()
    mined_and_no_more(shim, f"{world.root}/ws")
    assert not [name for name in os.listdir(world.root / "ws") if name.startswith(PROOF_PREFIX)]
    assert {session["origin"] for session in world.broker().status()["sessions"]} == {"guest"}


def test_a_container_mines_what_it_has_mounted(world: World) -> None:
    netbox.require_boxes()
    (world.state_root / "config.json").write_text("{}")
    first = world.shim()
    first.initialize()
    binds = {world.state_root: f"{netbox.HOME}/.mempalace", world.root / "ws": "/workspace"}
    with Box("one", binds) as box:
        side = Side(world, box)
        shim = side.shim()
        shim.initialize()
        mined_and_no_more(shim, "/workspace")
        assert not [name for name in os.listdir(world.root / "ws") if name.startswith(PROOF_PREFIX)]
        for folder in ("secret", "ws/folder", "ws/../secret"):  # past the shim, by the host's own names
            said = side.python(_RAW, f"{netbox.HOME}/.mempalace/broker.sock", f"{world.root}/{folder}")
            assert f'"code":{errors.INVALID_PARAMS}' in said.replace(" ", "")
        origins = [session["origin"] for session in world.broker().status()["sessions"]]
        assert sorted(origins) == ["guest", "host"]
        shim.finish()
    first.finish()
