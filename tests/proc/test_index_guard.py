"""An index that was torn in the middle of being stored, as a kill tears it, is whole again at the next start."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import RpcProcess, World, engine_python, eventually, kill_pid

pytestmark = pytest.mark.engine
TOPICS = ("owls", "tides", "bridges", "glaciers", "violins", "compilers", "orchards", "beacons")


def texts(count: int) -> list[str]:
    return [f"{TOPICS[n % len(TOPICS)]} note {n} on why one writer keeps the index whole" for n in range(count)]


def fill(server: RpcProcess, contents: list[str]) -> list[str]:
    return [str(server.call_tool("add_drawer", wing="w", room="r", content=text)["drawer_id"]) for text in contents]


def stored_index(world: World) -> Path | None:
    return next(world.palace.glob("*-*-*-*-*/index_metadata.pickle"), None)


STORE_OFTEN = """
import sys, chromadb
from chromadb.api.collection_configuration import UpdateCollectionConfiguration, UpdateHNSWConfiguration
collection = chromadb.PersistentClient(sys.argv[1]).get_collection("mempalace_drawers", embedding_function=None)
often = UpdateHNSWConfiguration(sync_threshold=2, batch_size=2)
collection.modify(configuration=UpdateCollectionConfiguration(hnsw=often))
"""


def a_palace_with_a_stored_index(world: World) -> Path:
    """3.4.0 stores at every second write when it is on its own; the newest is told to."""
    assert world.engine is not None
    bare = world.bare()
    bare.initialize()
    fill(bare, texts(4))
    assert bare.finish() == 0
    done = world.run(str(engine_python(world.engine)), "-c", STORE_OFTEN, str(world.palace))
    assert done.returncode == 0, done.stderr
    bare = world.bare()
    bare.initialize()
    fill(bare, texts(12)[4:])
    assert bare.finish() == 0
    meta = stored_index(world)
    assert meta is not None
    return meta


def empty_metadata(meta: Path) -> None:
    meta.write_bytes(b"")


def half_metadata(meta: Path) -> None:
    meta.write_bytes(meta.read_bytes()[: meta.stat().st_size // 2])


def header_ahead(meta: Path) -> None:
    header = meta.parent / "header.bin"
    data = bytearray(header.read_bytes())
    struct.pack_into("<Q", data, 20, struct.unpack_from("<Q", data, 20)[0] + 2)
    header.write_bytes(data)


@pytest.mark.parametrize("tear", [empty_metadata, half_metadata, header_ahead])
def test_a_torn_index_is_put_back(world: World, tear: object) -> None:
    assert callable(tear)
    meta = a_palace_with_a_stored_index(world)
    shim = world.shim()
    shim.initialize()
    fill(shim, texts(16)[12:])
    shim.call_tool("delete_drawer", drawer_id=fill(shim, ["a drawer that is deleted again"])[0])
    broker = world.broker()
    engine = broker.engine_pid()
    kill_pid(engine)
    eventually(lambda: broker.status()["engine"]["pid"] != engine, what="the death to be seen")
    tear(meta)
    kill_pid(broker.engine_pid())  # the engine that may have started meanwhile: the next one sees the torn index
    for text in texts(16)[::3]:
        found = shim.call_tool("search", 60, query=text, limit=3)["results"]
        assert text in [hit["text"] for hit in found], f"{text!r} is lost to search: {found}"
    assert "put back" in world.log()
    assert not [entry for entry in world.palace.iterdir() if ".corrupt" in entry.name or ".drift" in entry.name]
    assert broker.status()["degraded"] == []


@pytest.mark.parametrize("engine", ["3.4.0"], indirect=True)
def test_a_copy_that_does_not_fit_is_not_put_back(world: World) -> None:
    meta = a_palace_with_a_stored_index(world)
    shim = world.shim()
    shim.initialize()
    shim.call_tool("status")
    world.broker().admin("broker/stop", {"mode": "drain"})
    eventually(lambda: not world.brokers(), what="the broker to leave")
    bare = world.bare()
    bare.initialize()
    fill(bare, ["written past the broker, one", "written past the broker, two"])
    bare.finish()
    with closing(sqlite3.connect(world.palace / "chroma.sqlite3")) as db, db:
        db.execute("DELETE FROM embeddings_queue")  # as after a complete index that the copy has not seen
    empty_metadata(meta)
    shim.call_tool("kg_stats", 60)
    (entry,) = [e for e in world.broker().status()["degraded"] if "index" in e["what"]]
    assert "does not fit" in entry["what"]
    assert entry["hint"] == "mempalace repair"
