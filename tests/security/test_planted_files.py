"""A guest that can write the palace puts links, and what no broker makes, under the names that host code opens."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mempalace_broker import errors
from mempalace_broker.lease.machine.lease import LeaseState, NodeKind
from mempalace_broker.lease.machine.record import HolderId, encode
from tests.harness import World, eventually
from tests.rpcproc import RpcError

pytestmark = [pytest.mark.engine, pytest.mark.parametrize("engine", ["newest"], indirect=True)]

TUNNEL = {"source_wing": "a", "source_room": "b", "target_wing": "c", "target_room": "d", "label": "l"}
INDEX = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"


@pytest.fixture
def secret(world: World) -> Path:
    path = world.root / "id_ed25519"
    path.write_text("HOSTSECRET", encoding="ascii")
    return path


def everything(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_link_among_the_stores_is_neither_read_nor_opened(world: World, secret: Path) -> None:
    folder = world.palace / INDEX
    folder.mkdir(parents=True)
    (folder / "index_metadata.pickle").write_bytes(b"torn")
    for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "data_level0.bin.part"):
        (folder / name).symlink_to(secret)
    shim = world.shim()
    shim.initialize()
    with pytest.raises(RpcError) as refused:
        shim.call_tool("kg_stats")
    assert INDEX in str(refused.value)
    assert "remove it" in str(refused.value)
    assert b"HOSTSECRET" not in everything(world.state_root)
    assert secret.read_text(encoding="ascii") == "HOSTSECRET"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert world.cli("restart").returncode == errors.EXIT_OK
    assert shim.call_tool("kg_stats")


def test_mempalaces_own_files_do_not_lead_to_a_file_of_the_host(world: World, secret: Path) -> None:
    """Its log of writes holds words of its callers: appended to a shell's profile, they would be run."""
    (world.state_root / "wal").mkdir()
    (world.palace).mkdir(mode=0o700)
    for name in ("wal/write_log.jsonl", "tunnels.json", "tunnels.json.tmp", "palace/replica.json"):
        (world.state_root / name).symlink_to(secret)
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("kg_add", subject="$(id)", predicate="p", object="o")["success"]
    assert "HOSTSECRET" not in str(shim.call_tool("list_tunnels"))
    assert "error" in shim.request("tools/call", {"name": "mempalace_create_tunnel", "arguments": TUNNEL})
    assert secret.read_text(encoding="ascii") == "HOSTSECRET"


def test_no_junk_among_the_leases_stops_a_start_or_a_broker(world: World) -> None:
    leases = world.palace / "broker-claims"
    leases.mkdir(parents=True, mode=0o700)

    def plant() -> None:
        for name in ("999999999999", "\u00b2" * 12, "ask-\u00b2-x", "gone-1e999-1"):
            (leases / name).touch()
        (leases / "000000000007").mkdir()
        (leases / "000000000008").symlink_to("/etc/passwd")

    plant()
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("kg_stats")
    broker = world.broker()
    for name in ("000000000999", "000000000998"):
        (leases / name).mkdir()
    assert shim.call_tool("kg_stats")
    assert world.broker().pid == broker.pid
    found = world.cli("doctor")
    assert "no broker made these" in found.stdout
    world.cli("stop")
    mended = world.cli("take-over", "--yes")
    assert mended.returncode == errors.EXIT_OK, mended.stderr
    assert "999999999999" in mended.stdout
    assert "no broker made these" not in world.cli("doctor").stdout


def test_no_forged_lease_costs_a_running_broker_a_call_or_the_next_one_its_start(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("kg_stats")
    broker = world.broker()
    leases = world.palace / "broker-claims"
    epoch = broker.record["epoch"]
    far = HolderId(NodeKind.FOREIGN, "forged", "boot-far", "", 2, "2:2", 2.0, "bb").encode()
    forged = [epoch + 1, epoch + 2, 999_999_998]
    for above, state, busy in zip(forged, (LeaseState.ACTIVE,) * 2 + (LeaseState.ACQUIRING,), (1, 0, 0), strict=True):
        (leases / f"{above:012}").write_bytes(encode(above, state, 9, busy=bool(busy), holder=far))
    (leases / f"gone-{epoch:012}-{broker.status()['lease']['sequence']}").touch()
    assert shim.call_tool("kg_stats")
    eventually(
        lambda: all(not (leases / f"{name:012}").exists() for name in forged), what="forged leases that are gone"
    )
    (leases / f"{epoch:012}").unlink()
    assert shim.call_tool("kg_stats")
    eventually((leases / f"{epoch:012}").exists, what="the broker's own lease")
    status = world.broker().status()
    assert (world.broker().pid, status["engine"]["restarts"]) == (broker.pid, 0)
    assert status["lease"]["epoch"] == epoch
    assert any("higher epoch" in entry["what"] for entry in status["degraded"])
    assert world.cli("restart").returncode == errors.EXIT_OK
    assert world.broker().record["epoch"] == epoch + 1


def test_a_file_in_place_of_the_leases_is_removed_by_take_over(world: World) -> None:
    world.palace.mkdir(parents=True, exist_ok=True, mode=0o700)
    (world.palace / "broker-claims").symlink_to("broker-claims")
    refused = world.cli("ensure")
    assert refused.returncode != errors.EXIT_OK
    assert "take-over --yes" in refused.stderr
    assert world.cli("take-over", "--yes").returncode == errors.EXIT_OK
    assert world.cli("ensure").returncode == errors.EXIT_OK


def test_a_file_beside_the_stores_neither_crashes_a_snapshot_nor_fills_the_disk(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("add_drawer", wing="w", room="r", content="a heron waits at the weir")["success"]
    odd = os.fsencode(world.palace) + b"/\xff\x1b[31m.db"
    with closing(sqlite3.connect(odd)) as database:
        database.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (a)")
    create = ("backup", "create", "--untried")
    assert world.cli(*create).returncode == errors.EXIT_OK
    os.unlink(odd)
    garbage = world.palace / "garbage.db"
    garbage.write_bytes(b"no database" * 1000)
    failed = world.cli(*create)
    assert failed.returncode == errors.EXIT_FAILURE
    assert "garbage.db can't be read" in failed.stderr
    garbage.unlink()
    sparse = world.palace / "sparse.bin"
    sparse.touch()
    os.truncate(sparse, 4 << 40)
    failed = world.cli(*create)
    assert failed.returncode == errors.EXIT_STATE_ROOT
    assert "does not fit" in failed.stderr
    sparse.unlink()
    assert world.cli(*create).returncode == errors.EXIT_OK
    assert len(list(world.private.rglob("manifest.json"))) == 2


def test_a_file_that_claims_to_be_huge_costs_the_engine_no_memory(world: World) -> None:
    for name in ("config.json", "tunnels.json"):
        (world.state_root / name).touch()
        os.truncate(world.state_root / name, 1 << 30)
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("list_tunnels") == []
    lines = Path(f"/proc/{world.broker().engine_pid()}/status").read_text(encoding="ascii").splitlines()
    assert next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) < 1 << 20
    assert "config.json is not read" in world.log()
