"""The storm, as a user runs it: sessions at once, kill -9 in the middle, then every promise is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests import harness
from tests.harness import World
from tests.postgres import require_postgres

STORM = harness.REPO / "benchmarks" / "storm.py"


def run_storm(world: World, *args: str, timeout: float) -> dict[str, Any]:
    """Run one storm through the broker; return its JSON report."""
    assert world.engine is not None
    programs = world.env["PATH"].split(":")[0]  # mp-shim and mempalace-broker of this checkout
    env = {**os.environ, "MPB_BIN": programs, "MPB_MODEL_HOME": str(harness.model_home())}
    argv = [sys.executable, str(STORM), "--json", "--engine", str(harness.engine_python(world.engine)), *args]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.stdout, done.stderr[-3000:]
    storm: dict[str, Any] = json.loads(done.stdout)["storms"][0]
    assert done.returncode == 0, json.dumps(storm, indent=1)
    return storm


def check(storm: dict[str, Any], *, writes: int) -> None:
    """What the exit code does not say: that there was a storm at all, and that no call failed."""
    assert storm["clean"], storm
    assert storm["acknowledged"] >= writes
    assert storm["tally"]["failed"] == {}
    assert storm["tally"]["astray"] == 0
    assert storm["owners"]["most"] == 1
    assert storm["owners"]["samples"] >= 100


@pytest.mark.timeout(180)
def test_a_short_storm_with_an_engine_killed(world: World) -> None:
    storm = run_storm(world, "--sessions", "4", "--seconds", "6", "--kill", "engine", timeout=170)
    check(storm, writes=20)
    assert len(storm["owners"]["owners"]) == 2, "one engine before the kill, one after it"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_storm_with_everything_killed(world: World) -> None:
    kills = [word for what in ("engine", "broker", "shim", "both", "engine", "broker") for word in ("--kill", what)]
    storm = run_storm(world, "--sessions", "8", "--seconds", "60", *kills, timeout=1700)
    check(storm, writes=300)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["pgvector", "sqlite_exact", "rust_exact"])
def test_a_storm_with_the_drawers_elsewhere(backend: str) -> None:
    require_postgres()
    kills = [word for what in ("engine", "broker", "both") for word in ("--kill", what)]
    with World("databases") as world:
        storm = run_storm(world, "--sessions", "4", "--seconds", "20", "--backend", backend, *kills, timeout=1700)
    check(storm, writes=50)
