"""A guest swaps stores for links while an engine has the palace open: Chroma and SQLite write through none of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker.engine import landlock
from mempalace_broker.protocol.write_lock import lock_name
from tests.background import Background
from tests.harness import World, eventually
from tests.rpcproc import RpcError, RpcProcess

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("swapped")]
NEEDS_LANDLOCK = pytest.mark.skipif(landlock.version() < landlock.OLDEST, reason="this kernel has no Landlock")
GRAPH = "knowledge_graph.sqlite3"


def swap(world: World) -> dict[Path, str]:
    """Replace databases and indexes by links to copies outside, which a write would go into; their digests."""
    outside = world.root / "of-the-user"
    outside.mkdir()
    stores = [world.state_root / GRAPH, *world.palace.glob("*.sqlite3*"), *world.palace.glob("*-*-*-*-*/*")]
    for number, store in enumerate(path for path in stores if path.is_file()):
        copy = outside / str(number)
        shutil.copyfile(store, copy)
        store.unlink()
        store.symlink_to(copy)
    for name in ("chroma.sqlite3-journal", "chroma.sqlite3-wal", "sqlite_exact.sqlite3"):
        if not os.path.lexists(world.palace / name):
            (world.palace / name).symlink_to(outside / f"made-{name}")
    return digests(outside)


def digests(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def write_all(shim: RpcProcess) -> None:
    """Open everything anew and write to every store; what can't be written is an error, and nothing else."""
    for tool, arguments in (
        ("reconnect", {}),
        ("kg_add", {"subject": "s", "predicate": "p", "object": "o"}),
        ("add_drawer", {"wing": "w", "room": "r", "content": "written after the swap"}),
        ("diary_write", {"agent_name": "a", "entry": "a day after the swap"}),
        ("search", {"query": "swap"}),
    ):
        try:
            shim.call_tool(tool, 90, **arguments)
        except RpcError as error:
            print(tool, error)


@NEEDS_LANDLOCK
def test_an_open_engine_writes_through_no_link(world: World) -> None:
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("add_drawer", wing="w", room="r", content="written before the swap")["success"]
    assert shim.call_tool("kg_add", subject="a", predicate="b", object="c")["success"]
    assert shim.call_tool("diary_write", agent_name="a", entry="a day before the swap")["success"]
    broker = world.broker()
    assert broker.status()["engine"]["write_limits"] == ""
    before = swap(world)
    write_all(shim)
    shim.finish()
    assert world.cli("stop").returncode == 0  # it stores its indexes when it leaves
    assert digests(world.root / "of-the-user") == before


@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_a_parked_engine_opens_no_link(world: World) -> None:
    world.env["MEMPALACE_BROKER_PARK_S"] = "1"
    shim = world.shim()
    shim.initialize()
    assert shim.call_tool("add_drawer", wing="w", room="r", content="written before the swap")["success"]
    eventually(lambda: world.broker().status()["engine"]["state"] == "parked", what="an engine that parks")
    database, copy = world.palace / "chroma.sqlite3", world.root / "of-the-user"
    database.rename(copy)
    database.symlink_to(copy)
    with pytest.raises(RpcError) as refused:
        shim.call_tool("search", query="swap")
    assert f"{database} can't be trusted" in str(refused.value)
    database.unlink()
    copy.rename(database)
    assert world.cli("restart").returncode == 0
    assert "before the swap" in str(shim.call_tool("search", query="swap"))


@pytest.fixture
def before_the_move(world: World) -> Iterator[RpcProcess]:
    """A session whose drawer has to be found after each move, or after one that failed."""
    with world.shim() as shim:
        shim.initialize()
        assert shim.call_tool("add_drawer", wing="w", room="r", content="written before the move")["success"]
        yield shim
        assert "before the move" in str(shim.call_tool("search", query="move"))


@pytest.fixture
def of_the_user(world: World) -> Path:
    """A name where nothing is, in a folder where Landlock would let an engine write."""
    return world.home / ".cache" / "huggingface" / "of-the-user"


@pytest.mark.usefixtures("before_the_move")
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_a_link_in_place_of_the_folder_for_a_move_is_not_followed(world: World) -> None:
    outside = world.root / "of-the-user"
    outside.mkdir()
    (world.state_root / "palace.moving-to-sqlite_exact").symlink_to(outside)
    done = world.cli("move-to", "sqlite_exact", timeout=120)
    assert list(outside.iterdir()) == []
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("before_the_move")
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_a_link_in_place_of_mempalaces_lock_is_not_written_through_by_a_move(world: World, of_the_user: Path) -> None:
    of_the_user.write_text("the user's")
    lock = world.state_root / "locks" / lock_name(os.path.realpath(world.palace))
    lock.unlink()
    lock.symlink_to(of_the_user)
    done = world.cli("move-to", "sqlite_exact", timeout=120)
    assert of_the_user.read_text() == "the user's"
    assert done.returncode == 1, done.stderr
    lock.unlink()
    assert world.cli("restart").returncode == 0


@pytest.mark.usefixtures("before_the_move")
@pytest.mark.parametrize("whose", ["guests", "ours"])
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_a_link_among_what_a_killed_move_left_is_not_written_through(
    world: World, of_the_user: Path, whose: str
) -> None:
    world.state("moving.json").write_text('{"target": "sqlite_exact"}')
    beside = world.state_root / "palace.moving-to-sqlite_exact"  # of an earlier version
    staging = beside if whose == "guests" else world.state("moving-to-sqlite_exact")
    staging.mkdir()
    (staging / "sqlite_exact.sqlite3").symlink_to(of_the_user)
    done = world.cli("move-to", "sqlite_exact", timeout=120)
    assert not of_the_user.exists()
    if whose == "guests":
        assert done.returncode == 0, done.stderr
        assert not beside.exists()
    else:
        assert done.returncode == 1
        assert f"Hint: look at it (ls -la {staging}/sqlite_exact.sqlite3)" in done.stderr


class Swapper(Background):
    """A guest who puts a link in the place of a folder as soon as `note` is there, so that the folder was checked."""

    def __init__(self, folder: Path, link_to: Path, note: Path) -> None:
        self._folder, self._link_to, self._note = folder, link_to, note
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.0005):
            if self._note.exists() and self._folder.is_dir():  # and no store in it is open yet
                self._folder.rename(self._folder.parent / "away")
                self._folder.symlink_to(self._link_to)
                return

    def end(self) -> None:
        self._ended.set()


@pytest.mark.usefixtures("before_the_move")
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_a_guest_has_no_folder_to_swap_while_a_move_copies(world: World, of_the_user: Path) -> None:
    of_the_user.mkdir()
    with Swapper(world.state_root / "palace.moving-to-sqlite_exact", of_the_user, world.state("moving.json")):
        done = world.cli("move-to", "sqlite_exact", "--replace", timeout=120)
    assert list(of_the_user.iterdir()) == []
    assert done.returncode == 0, done.stderr


@NEEDS_LANDLOCK
@pytest.mark.parametrize("engine", ["newest"], indirect=True)
def test_a_palace_in_the_home_itself_is_said_to_be_less_safe(world: World) -> None:
    with world.shim("--palace", str(world.home / "notes")) as shim:
        shim.initialize()
        assert shim.call_tool("kg_stats")
        found = world.cli("doctor", "--palace", str(world.home / "notes"))
        assert f"files in {world.home} itself" in found.stdout
    assert world.cli("stop", "--palace", str(world.home / "notes")).returncode == 0
