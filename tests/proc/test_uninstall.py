"""docs/uninstall.md names every file that a run makes, and its commands remove them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.harness import REPO, World, require_engine

pytestmark = pytest.mark.engine
TEXT = (REPO / "docs" / "uninstall.md").read_text(encoding="utf-8")


def documented(world: World) -> list[str]:
    """The patterns of the table, for this world."""
    cells = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    patterns = [pattern for cell in cells for pattern in re.findall(r"`([^`]+)`", cell)]
    places = {
        "ROOT": str(world.state_root),
        "P": str(world.palace),
        "~/.local/state/mempalace-broker/KEY": f"{world.private}/state/*",
        "~/.local/state/mempalace-broker": str(world.private),
        "~": str(world.home),
    }
    for place, path in places.items():
        patterns = [
            path + pattern[len(place) :] if pattern.startswith(f"{place}/") else pattern for pattern in patterns
        ]
    return patterns


def files(*folders: Path) -> set[str]:
    """All that is no folder, but what SQLite has beside a database while it is open."""
    found = {str(path) for folder in folders for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return {path for path in found if not path.endswith(("-shm", "-wal", "-journal"))}


@pytest.fixture
def world() -> Iterator[World]:
    require_engine("newest")
    with World("newest") as made:
        yield made


def test_every_file_of_a_run_is_named_and_removed(world: World) -> None:
    for text in ("one", "and again, in a palace that is there"):
        bare = world.bare()
        bare.initialize()
        bare.call_tool("add_drawer", wing="w", room="r", content=text)
        bare.finish()
    mempalaces = files(world.home, world.root / "t")

    world.cli("token")
    world.cli("token", "--metrics")
    world.cli("ensure", "--tcp", "127.0.0.1")
    shim = world.shim()
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="two")
    assert world.cli("backup", "create", "--untried").returncode == 0
    assert world.cli("exclusive", "--", "true").returncode == 0
    browser = {"DISPLAY": ":99", "BROWSER": "true"}  # webbrowser starts whatever $BROWSER names
    assert world.cli("open", env=browser).returncode == 0
    during = files(world.home, world.private, world.root / "t")
    shim.finish()
    assert world.cli("stop").returncode == 0

    made = (during | files(world.home, world.private, world.root / "t")) - mempalaces
    known = documented(world)
    unnamed = sorted(path for path in made if not any(fnmatch(path, pattern) for pattern in known))
    assert not unnamed, "docs/uninstall.md does not name them"

    commands = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)[-1]
    subprocess.run(["sh", "-ec", commands], env={**world.env, "HOME": str(world.home)}, check=True, timeout=60)
    assert files(world.home, world.root / "t") == mempalaces
