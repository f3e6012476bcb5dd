from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fake_broker import FakeBroker
from tests.harness import World, require_engine
from tests.installers import build_wheel, uv_and_pipx


@pytest.fixture(scope="module")
def warm() -> Iterator[World]:
    """One world for a module: its broker runs until the module's end, and its engine is up."""
    require_engine("newest")
    with World("newest") as world:
        world.shim().initialize()
        world.broker().engine_pid()
        yield world


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of uv and pipx."""
    return uv_and_pipx(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mb", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def broker(folder: Path) -> Iterator[FakeBroker]:
    with FakeBroker(str(folder / "b.sock")) as fake:
        yield fake
