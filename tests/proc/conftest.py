from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fake_broker import FakeBroker
from tests.harness import World, require_engine


@pytest.fixture(scope="module")
def warm() -> Iterator[World]:
    """One world for a module: its broker runs until the module's end, and its engine is up."""
    require_engine("newest")
    with World("newest") as world:
        world.shim().initialize()
        world.broker().engine_pid()
        yield world


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="mb", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def broker(folder: Path) -> Iterator[FakeBroker]:
    with FakeBroker(str(folder / "b.sock")) as fake:
        yield fake
