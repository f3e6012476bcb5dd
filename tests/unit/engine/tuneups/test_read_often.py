"""config.json and collections are read again only after they changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.tuneups.read_often import COLLECTION_CACHE, CONFIG_CACHE, SCHEMA_CACHE
from mempalace_broker.engine.tuneups.tuneup import DoesNotFit
from tests.fakes.mempalace import FakeMempalace, touch

# -- config-cache ----------------------------------------------------------------------------------------


def config_class(read: list[str]) -> Any:
    class MempalaceConfig:
        def __init__(self, config_dir: str | None = None, palace_path: str | None = None) -> None:
            self._config_dir = Path(config_dir) if config_dir else Path.home() / ".mempalace"
            self._config_file = self._config_dir / "config.json"
            self._file_config = {}
            if self._config_file.exists():
                read.append(str(self._config_file))
                self._file_config = json.loads(self._config_file.read_text())

    return MempalaceConfig


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(home: Path, text: str, ago_s: float) -> None:
    path = home / ".mempalace" / "config.json"
    touch(path, ago_s=ago_s, data=text.encode())


def test_config_json_is_read_again_only_after_it_changed(home: Path, tmp_path: Path) -> None:
    read: list[str] = []
    config = config_class(read)
    CONFIG_CACHE.apply(FakeMempalace(tmp_path, config=SimpleNamespace(MempalaceConfig=config)))  # type: ignore[arg-type]
    for n in range(1, 3):
        write(home, json.dumps({"n": n, "hooks": {"silent": True}}), ago_s=100 - n)
        for _ in range(3):
            found = config()
            assert found._file_config == {"n": n, "hooks": {"silent": True}}
            found._file_config["hooks"]["silent"] = False  # of this one alone
        assert len(read) == n
    (home / ".mempalace" / "config.json").unlink()
    assert config()._file_config == {}


def test_a_missing_config_json_is_looked_for_and_not_read(home: Path, tmp_path: Path) -> None:
    made: list[str] = []
    config = config_class(made)
    stock = config.__init__

    def init(self: Any, config_dir: str | None = None, palace_path: str | None = None) -> None:
        made.append("new")
        stock(self, config_dir, palace_path)

    config.__init__ = init
    CONFIG_CACHE.apply(FakeMempalace(tmp_path, config=SimpleNamespace(MempalaceConfig=config)))  # type: ignore[arg-type]
    assert [config()._file_config for _ in range(3)] == [{}] * 3
    assert made == ["new"]
    write(home, '{"a": 1}', ago_s=60)
    assert config()._file_config == {"a": 1}
    write(home, "{}", ago_s=50)  # there, and nothing in it: it could as well be one that can't be read
    assert [config()._file_config for _ in range(2)] == [{}] * 2
    assert made.count("new") == 4


def test_another_folder_is_read_as_ever(home: Path, tmp_path: Path) -> None:
    read: list[str] = []
    config = config_class(read)
    CONFIG_CACHE.apply(FakeMempalace(tmp_path, config=SimpleNamespace(MempalaceConfig=config)))  # type: ignore[arg-type]
    write(home, '{"a": 1}', ago_s=60)
    for _ in range(2):
        assert config(str(home / ".mempalace"))._file_config == {"a": 1}
    assert len(read) == 2


def test_another_home_is_another_configuration(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_class([])
    CONFIG_CACHE.apply(FakeMempalace(tmp_path, config=SimpleNamespace(MempalaceConfig=config)))  # type: ignore[arg-type]
    write(home, '{"a": 1}', ago_s=60)
    assert [config()._file_config, config()._file_config] == [{"a": 1}] * 2
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert config()._file_config == {}


def test_another_config_class_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit):
        CONFIG_CACHE.apply(FakeMempalace(tmp_path, config=SimpleNamespace()))  # type: ignore[arg-type]


# -- collection-cache ------------------------------------------------------------------------------------


class Missing(Exception):
    pass


@pytest.fixture
def chroma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A chromadb that counts how often it is asked, and has the collection `drawers`."""
    asked: list[str] = []

    class RustBindingsAPI:
        def __init__(self, folder: str) -> None:
            self._system = SimpleNamespace(settings=SimpleNamespace(persist_directory=folder))

        def get_collection(self, name: str, tenant: str = "t", database: str = "d") -> SimpleNamespace:
            asked.append(name)
            if name != "drawers":
                raise Missing(name)
            return SimpleNamespace(name=name, number=len(asked))

    monkeypatch.setitem(sys.modules, "chromadb.api.rust", SimpleNamespace(RustBindingsAPI=RustBindingsAPI))
    monkeypatch.setitem(sys.modules, "chromadb.errors", SimpleNamespace(NotFoundError=Missing))
    touch(tmp_path / "chroma.sqlite3", ago_s=60)
    COLLECTION_CACHE.apply(FakeMempalace(tmp_path))  # type: ignore[arg-type]
    return SimpleNamespace(asked=asked, open=RustBindingsAPI)


def test_a_collection_is_asked_for_again_only_after_a_change(chroma: SimpleNamespace, tmp_path: Path) -> None:
    client = chroma.open(str(tmp_path))
    for n, name in enumerate(["chroma.sqlite3", "chroma.sqlite3", "chroma.sqlite3-wal"], start=1):
        touch(tmp_path / name, ago_s=50 - n)
        found = [client.get_collection(name="drawers", tenant="t", database="d") for _ in range(3)]
        assert [one.number for one in found] == [n] * 3
        found[0].number = 99  # mempalace changes what it got
    assert len(chroma.asked) == 3


def test_that_one_is_missing_is_remembered_as_long(chroma: SimpleNamespace, tmp_path: Path) -> None:
    client = chroma.open(str(tmp_path))
    for _ in range(3):
        with pytest.raises(Missing, match="closets"):
            client.get_collection("closets")
    assert chroma.asked == ["closets"]
    touch(tmp_path / "chroma.sqlite3", ago_s=30)
    with pytest.raises(Missing):
        client.get_collection("closets")
    assert len(chroma.asked) == 2


def test_each_open_client_asks_for_itself(chroma: SimpleNamespace, tmp_path: Path) -> None:
    for client in (chroma.open(str(tmp_path)), chroma.open(str(tmp_path))):
        for _ in range(2):
            client.get_collection("drawers")
    assert len(chroma.asked) == 2


def test_another_palace_is_asked_as_ever(chroma: SimpleNamespace, tmp_path: Path) -> None:
    client = chroma.open(str(tmp_path / "another"))
    for _ in range(2):
        client.get_collection("drawers")
    assert len(chroma.asked) == 2


def test_without_such_a_chromadb_it_stays_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb.api.rust", None)
    with pytest.raises(DoesNotFit):
        COLLECTION_CACHE.apply(FakeMempalace(tmp_path))  # type: ignore[arg-type]


# -- schema-cache ----------------------------------------------------------------------------------------


def test_a_schema_without_sparse_embeddings_is_looked_through_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looked: list[Any] = []

    class CollectionCommon:
        def __init__(self, schema: Any) -> None:
            self._model = SimpleNamespace(serialized_schema=schema)

        def _get_sparse_embedding_targets(self) -> dict[str, Any]:
            looked.append(self._model.serialized_schema)
            found: dict[str, Any] = dict(self._model.serialized_schema or {}).get("sparse", {})
            return found

    module = SimpleNamespace(CollectionCommon=CollectionCommon)
    monkeypatch.setitem(sys.modules, "chromadb.api.models.CollectionCommon", module)
    SCHEMA_CACHE.apply(FakeMempalace(tmp_path))  # type: ignore[arg-type]
    schema: dict[str, Any] = {"keys": {"a": 1}}
    collection = CollectionCommon(schema)
    assert [collection._get_sparse_embedding_targets() for _ in range(3)] == [{}] * 3
    assert len(looked) == 1
    schema["sparse"] = {"a": "target"}
    assert [collection._get_sparse_embedding_targets() for _ in range(2)] == [{"a": "target"}] * 2
    assert CollectionCommon(None)._get_sparse_embedding_targets() == {}
    assert len(looked) == 4
