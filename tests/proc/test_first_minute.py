"""From a machine with nothing on it to an agent's first call; and each way in which that fails, with its next step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mempalace_broker import errors
from tests.harness import MODEL, World, eventually, require_engine
from tests.installers import as_pipx_app, as_uv_tool, run
from tests.rpcproc import RpcError, RpcProcess

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("first minute")]  # one installs uv and pipx for all

MINUTE_S = 60.0
SYSTEM_PATH = "/usr/bin:/bin"
WITHOUT_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


@pytest.fixture
def world() -> Iterator[World]:
    """A home with an agent that was never configured, and nothing of ours or of mempalace."""
    require_engine("newest")
    with World(None) as made:
        (made.home / ".cursor").mkdir()
        made.env |= {"PATH": f"{made.home}/.local/bin:{SYSTEM_PATH}", "MEMPALACE_BROKER_PARK_S": "1"}
        yield made


READ_ONLY = 'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def agent(world: World, prefix: list[str] | None = None) -> RpcProcess:
    """What Cursor starts, by its configuration; it passes few variables and a short PATH on."""
    entry = json.loads((world.home / ".cursor/mcp.json").read_text())["mcpServers"]["mempalace"]
    return world.spawn([*(prefix or []), entry["command"], *entry["args"]], env={"PATH": SYSTEM_PATH, "SHELL": ""})


@pytest.mark.parametrize("installer", ["uv", "pipx"])
def test_a_call_within_a_minute(installer: str, world: World, wheel: Path, tools: Path) -> None:
    started = time.monotonic()
    env = {"HOME": str(world.home), "PATH": f"{tools}:{SYSTEM_PATH}"}
    if installer == "uv":  # --no-build: nothing needs a compiler
        run("uv", "tool", "install", "--quiet", "--no-build", "--python", sys.executable, wheel, env=env)
        as_uv_tool(world.home)
    else:
        run("pipx", "install", "--quiet", "--python", sys.executable, wheel, env=env)
        as_pipx_app(world.home)
    installed = time.monotonic()
    done = world.run("mempalace-broker", "setup", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["changed"] == ["cursor", "hooks"]
    assert said["engine"]["version"]
    assert said["model"] == "cached"
    shim = agent(world)
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits in the water")
    assert "heron" in json.dumps(shim.call_tool("search", query="heron", limit=1))
    ended = time.monotonic()
    print(f"{installer}: installed in {installed - started:.1f} s, first call after {ended - started:.1f} s")
    assert ended - started < MINUTE_S
    assert world.run("mempalace-broker", "stop").returncode == 0


# --- what may be missing


@pytest.fixture
def installed(world: World, wheel: Path, tools: Path) -> World:
    env = {"HOME": str(world.home), "PATH": f"{tools}:{SYSTEM_PATH}"}
    run("uv", "tool", "install", "--quiet", "--python", sys.executable, wheel, env=env)
    return world


def test_without_mempalace(installed: World) -> None:
    done = installed.run("mempalace-broker", "setup", "--yes")
    assert done.returncode == 0, done.stderr
    assert "No mempalace" in done.stdout
    assert "uv tool install mempalace" in done.stdout
    shim = agent(installed)
    shim.initialize()
    with pytest.raises(RpcError, match=r"No mempalace.*uv tool install mempalace"):
        shim.call_tool("search", query="heron")
    as_uv_tool(installed.home)
    eventually(lambda: answered(shim), what="an answer in the same session, once mempalace is there")


def answered(shim: RpcProcess) -> bool:
    try:
        return bool(shim.call_tool("search", query="heron"))
    except RpcError:  # for 2 s after the last look for it
        return False


def test_without_a_model_and_a_network(installed: World) -> None:
    if subprocess.run([*WITHOUT_NETWORK, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    (installed.home / MODEL).unlink()
    as_uv_tool(installed.home)
    done = installed.run("mempalace-broker", "setup", "--yes")
    assert "embedding model: not there yet" in done.stdout
    assert "mempalace-broker model install" in done.stdout
    shim = agent(installed, WITHOUT_NETWORK)
    shim.initialize()
    said = json.dumps(shim.call_tool("add_drawer", wing="w", room="r", content="the heron"))
    assert "model" in said
    assert "mempalace-broker model install" in said
    tried = installed.run(*WITHOUT_NETWORK, "mempalace-broker", "model", "install", "--real-home")
    assert tried.returncode == errors.EXIT_FAILURE
    assert "Hint: " in tried.stderr
    assert "Traceback" not in tried.stderr


def test_a_home_that_cannot_be_written(installed: World) -> None:
    argv = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(installed.home)]
    if subprocess.run([*argv, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    done = installed.run(*argv, "mempalace-broker", "setup", "--yes")
    assert done.returncode == errors.EXIT_FAILURE
    assert "Read-only file system" in done.stderr
    assert "Hint: " in done.stderr
    done = installed.run(*argv, "mempalace-broker", "doctor")
    assert "is mounted read-only" in done.stdout


def test_an_old_python_is_named(wheel: Path, tools: Path, tmp_path: Path) -> None:
    """By every installer, because the wheel says so; uv tells."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        assert "Requires-Python: >=3.11\n" in archive.read(metadata).decode()
    uv, env = str(tools / "uv"), {**os.environ, "HOME": str(tmp_path)}
    found = subprocess.run([uv, "python", "find", "--no-python-downloads", "<3.11"], check=False, capture_output=True)
    if found.returncode:
        pytest.skip("no Python older than 3.11 here")
    argv = [uv, "tool", "install", "--python", found.stdout.decode().strip(), str(wheel)]
    done = subprocess.run(argv, env=env, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python>=3.11" in done.stderr
