"""How seldom an index is stored, and that mempalace hears of it: it judges a stored index by that."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups.index_storage import SAID_THRESHOLD, STORE_SELDOM
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit, TuneUp
from tests.fakes.mempalace import FakeMempalace

SAID = "hnsw:sync_threshold"
MADE_BY_3_4 = {"hnsw:space": "cosine", SAID: 2}


class Collection:
    """As much of Chroma's as a pin uses.

    Attributes: stored (metadata in the database, by collection), in_force (its threshold), log (what was changed).
    """

    def __init__(self, metadata: dict[str, Any] | None, in_force: int) -> None:
        self.id, self.name, self.tenant, self.database = "1", "drawers", "t", "d"
        self.stored = metadata
        self.in_force = in_force
        self.log: list[str] = []
        self._model: dict[str, Any] = {"metadata": metadata}
        self._client = SimpleNamespace(_modify=self._store)

    @property
    def metadata(self) -> dict[str, Any] | None:
        known: dict[str, Any] | None = self._model["metadata"]
        return known

    @property
    def configuration_json(self) -> dict[str, Any]:
        return {"hnsw": {"sync_threshold": self.in_force}}

    def _store(self, *, id: str, new_metadata: dict[str, Any], tenant: str, database: str) -> None:
        assert (id, tenant, database) == ("1", "t", "d")
        self.log.append("metadata")
        self.stored = new_metadata

    def modify(self, *, configuration: Any) -> None:
        self.log.append("configuration")
        self.in_force = configuration["hnsw"]["sync_threshold"]


class World:
    """A mempalace whose reader sees what a collection stores. `default`: 3.4 to 3.6 have one, later ones none."""

    def __init__(self, path: Path, default: int | None) -> None:
        self.pinned = 0
        self.collection = Collection(dict(MADE_BY_3_4), 2)
        self.chroma = SimpleNamespace(_pin_hnsw_threads=self._pin(), _read_sync_threshold=self._reader())
        if default is not None:
            self.chroma._HNSW_BLOAT_GUARD = {"hnsw:batch_size": default, SAID: default}
        self.server = SimpleNamespace(_pin_hnsw_threads=self.chroma._pin_hnsw_threads)
        self.mempalace = FakeMempalace(path, self.server, backends__chroma=self.chroma)

    def _pin(self) -> Any:
        def pin(collection: Any) -> None:
            self.pinned += 1

        return pin

    def _reader(self) -> Any:
        def read(palace_path: str, collection_name: str) -> int:
            return int((self.collection.stored or {}).get(SAID, 1000))

        return read

    def apply(self, tuneup: TuneUp) -> None:
        tuneup.apply(self.mempalace)  # type: ignore[arg-type]

    def pin(self) -> None:
        for owner in (self.chroma, self.server):
            owner._pin_hnsw_threads(self.collection)
        assert self.pinned == 2


@pytest.fixture(autouse=True)
def chroma_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModuleType("chromadb.api.collection_configuration")
    vars(settings).update(UpdateCollectionConfiguration=dict, UpdateHNSWConfiguration=dict)
    for name in ("chromadb", "chromadb.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, settings.__name__, settings)


def test_an_index_that_is_stored_seldom_says_so_first(tmp_path: Path) -> None:
    world = World(tmp_path, default=2)
    world.apply(STORE_SELDOM)
    world.pin()
    assert world.collection.in_force == 1000
    assert world.collection.stored == world.collection.metadata == {**MADE_BY_3_4, SAID: 1000}
    assert world.collection.log == ["metadata", "configuration", "configuration"]  # said once


def test_it_is_stored_often_where_mempalace_does_not_hear_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def deaf(palace_path: str, collection_name: str) -> int:
        return 2

    world = World(tmp_path, default=2)
    world.chroma._read_sync_threshold = deaf
    world.apply(STORE_SELDOM)
    world.pin()
    assert world.collection.in_force == 2
    assert "mempalace reads a threshold of 2" in capfd.readouterr().err


@pytest.mark.parametrize("said", [2, 999])
def test_later_versions_correct_what_an_earlier_engine_left(tmp_path: Path, said: int) -> None:
    world = World(tmp_path, default=None)
    world.collection = Collection({**MADE_BY_3_4, SAID: said}, 1000)
    world.apply(SAID_THRESHOLD)
    world.pin()
    assert world.collection.stored == {**MADE_BY_3_4, SAID: 1000}
    assert world.collection.log == ["metadata"]


@pytest.mark.parametrize(
    ("metadata", "in_force"),
    [
        (MADE_BY_3_4, 2),  # by a 3.4.0 without us
        ({**MADE_BY_3_4, SAID: 1000}, 1000),
        ({**MADE_BY_3_4, SAID: 50_000}, 1000),
        ({"hnsw:space": "cosine"}, 1000),
        (None, 1000),
    ],
)
def test_what_is_right_stays(tmp_path: Path, metadata: dict[str, Any] | None, in_force: int) -> None:
    world = World(tmp_path, default=None)
    world.collection = Collection(metadata, in_force)
    world.apply(SAID_THRESHOLD)
    world.pin()
    assert world.collection.log == []


def test_an_odd_collection_is_left_to_mempalace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, default=None)
    world.apply(SAID_THRESHOLD)
    world.server._pin_hnsw_threads(SimpleNamespace(name="odd"))
    assert world.pinned == 1
    assert "odd still names another threshold" in capfd.readouterr().err


@pytest.mark.parametrize("tuneup", [STORE_SELDOM, SAID_THRESHOLD])
@pytest.mark.parametrize("name", ["_pin_hnsw_threads", "_read_sync_threshold"])
def test_another_mempalace_is_left_alone(tmp_path: Path, tuneup: TuneUp, name: str) -> None:
    world = World(tmp_path, default=2 if tuneup is STORE_SELDOM else None)
    setattr(world.chroma, name, lambda: None)
    before = vars(world.chroma).copy()
    with pytest.raises(DoesNotFit, match="not what it was"):
        world.apply(tuneup)
    assert vars(world.chroma) == before


@pytest.mark.parametrize(("tuneup", "default"), [(STORE_SELDOM, None), (STORE_SELDOM, 500), (SAID_THRESHOLD, 2)])
def test_one_of_both_is_needed(tmp_path: Path, tuneup: TuneUp, default: int | None) -> None:
    with pytest.raises(DoesNotFit, match="not needed"):
        World(tmp_path, default).apply(tuneup)
