"""A palace that holds nothing but the broker's files counts as missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mempalace_broker.engine.empty_palace import has_only_broker_files, treat_empty_palace_as_missing


class NotFoundError(Exception):
    pass


class Backend:
    def get_collection(self, palace: str, create: bool = False) -> str:
        return f"{palace} {create}"


@pytest.fixture
def backend() -> Any:
    class Fresh(Backend):
        get_collection = Backend.get_collection

    chroma = SimpleNamespace(
        ChromaBackend=Fresh,
        PalaceNotFoundError=NotFoundError,
        _normalize_get_collection_args=lambda args, kwargs: (
            SimpleNamespace(local_path=args[0]),
            "c",
            kwargs.pop("create", False),
            None,
        ),
    )
    mempalace: Any = SimpleNamespace(module=lambda name: chroma if name == "backends.chroma" else None)
    treat_empty_palace_as_missing(mempalace)
    return Fresh()


@pytest.mark.parametrize(
    "names", [[], ["broker.lock"], ["broker.lock", "engine.lock", "broker.log", "broker-exit.json"]]
)
def test_reads_find_no_palace_where_only_we_are(backend: Any, tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(NotFoundError):
        backend.get_collection(str(tmp_path))
    assert backend.get_collection(str(tmp_path), create=True) == f"{tmp_path} True"


def test_reads_find_what_is_there(backend: Any, tmp_path: Path) -> None:
    (tmp_path / "broker.lock").touch()
    (tmp_path / "chroma.sqlite3").touch()
    assert backend.get_collection(str(tmp_path)) == f"{tmp_path} False"


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert has_only_broker_files(str(tmp_path / "none"))


def test_a_mempalace_made_otherwise_is_left_alone() -> None:
    mempalace: Any = SimpleNamespace(module=lambda name: None)
    treat_empty_palace_as_missing(mempalace)
