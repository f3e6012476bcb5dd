"""mempalace's own commands, unmodified and unconfigured, come through the broker."""

from __future__ import annotations

import sys

import pytest

from tests import harness
from tests.harness import World, eventually
from tests.ways import hub_record

pytestmark = pytest.mark.engine
UNCHECKED = """import sys
from mempalace_broker.broker import app, daemon
app.SELF_CHECK_S = 3600.0
sys.exit(daemon.main())
"""


def requests(world: World) -> int:
    return int(world.broker().status()["http"]["requests"])


def test_stock_mine_search_and_server_come_through_the_broker() -> None:
    harness.require_engine("newest")
    with World("newest", env={"MEMPALACE_BROKER_PARK_S": "1"}) as world:
        notes = world.cwd / "notes"
        notes.mkdir()
        (notes / "pond.md").write_text("The duck swims in the pond. " * 20)
        world.shim().initialize()
        world.broker().engine_pid()
        told = eventually(lambda: hub_record(world), what="the record")
        assert told["pid"] == world.broker().pid
        assert "search_cli_compatible" in told["capabilities"]

        with world.watch_owners() as watch:
            mined = world.mempalace("mine", str(notes), "--agent", "tester")
        assert mined.returncode == 0, mined.stderr
        assert "forwarding mine to palace hub" in mined.stdout
        assert "Files processed: 1" in mined.stdout
        assert watch.most <= 1

        found = world.mempalace("search", "duck in the pond")
        assert "forwarding search" in found.stderr  # so the fingerprint is the command's own
        assert "pond.md" in found.stdout
        assert requests(world) == 2

        with world.watch_owners() as watch:
            stock = world.bare()
            stock.initialize()
            stock.call_tool("kg_add", subject="duck", predicate="swims_in", object="pond")
            assert stock.call_tool("kg_stats")["triples"] == 1
            stock.finish(20)
        assert watch.most <= 1
        assert requests(world) >= 5

        other = world.root / "other"
        other.mkdir()
        world.shim(env={"HOME": str(other), "MEMPALACE_PALACE_PATH": str(world.palace)}).initialize()
        eventually(lambda: hub_record(world, other), what="the record in the home of another agent")
        assert {**hub_record(world, other), "pid": 0} == {**told, "pid": 0}  # now of the process that keeps the socket
        assert world.broker().status()["degraded"] == []
        assert world.cli("stop").returncode == 0
        assert hub_record(world) == {}


def test_the_record_is_there_as_soon_as_the_engine_has_reported_its_tools() -> None:
    """A stock server that starts before that opens the palace itself."""
    harness.require_engine("newest")
    with World("newest") as world:
        argv = [sys.executable, "-P", "-c", UNCHECKED, "--palace", str(world.palace), "--palace-by", "config"]
        argv += ["--graph", str(world.state_root / "knowledge_graph.sqlite3"), "--root", str(world.state_root)]
        world.palace.mkdir()
        unchecked = world.spawn(argv)
        assert world.broker().pid == unchecked.pid
        world.shim().initialize()
        told = eventually(lambda: hub_record(world), what="the record")
        assert told["search_config_fingerprint"]
        assert world.cli("stop").returncode == 0


def test_without_a_listener_there_is_no_record() -> None:
    harness.require_engine("newest")
    with World("newest", env={"MEMPALACE_BROKER_HTTP": "0"}) as world:
        world.shim().initialize()
        world.broker().engine_pid()
        assert not (world.home / ".mempalace" / "server").exists()
