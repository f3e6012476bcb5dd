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
from mempalace_broker.system.environment import PROXIES
from tests.harness import MODEL, World, engine_python, eventually, require_engine
from tests.installers import as_pipx_app, as_uv_tool, run
from tests.rpcproc import RpcError, RpcProcess
from tests.terminal import Terminal

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("first minute")]  # one installs uv and pipx for all

MINUTE_S = 60.0
INSTALL_S = 600.0
TO_AN_INDEX = ("UV_", "PIP_", "SSL_")  # what a machine needs to reach one
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


FAKE_UV = """#!/bin/sh
[ "$*" = "tool install mempalace" ] || exit 2
echo "Resolved 77 packages"
[ -z "$NO_NETWORK" ] || { echo "error: no such host" >&2; exit 1; }
mkdir -p "$HOME/.local/share/uv/tools"
ln -s ENVIRONMENT "$HOME/.local/share/uv/tools/mempalace"
"""


def setup_on_a_terminal(world: World, **env: str) -> Terminal:
    terminal = Terminal("mempalace-broker", "setup", env={**world.env, "TERM": "xterm-256color", "CI": "1", **env})
    terminal.sees("mempalace itself is not on this machine.")
    return terminal


def test_setup_offers_mempalace_on_a_terminal(installed: World) -> None:
    uv = installed.home / ".local/bin/uv"
    uv.write_text(FAKE_UV.replace("ENVIRONMENT", str(engine_python("newest").parent.parent)))
    uv.chmod(0o755)
    terminal = setup_on_a_terminal(installed)
    terminal.sees("  uv tool install mempalace")
    terminal.sees("Run it? [y/N]")
    terminal.press(b"\r")
    terminal.sees("Change them? [y/N]")
    terminal.press(b"n\r")
    terminal.sees("next: run `mempalace-broker setup --engine`")
    assert terminal.ended() == 0
    assert not (installed.home / ".local/share/uv/tools/mempalace").exists(), "Enter alone installs nothing"

    terminal = setup_on_a_terminal(installed, NO_NETWORK="1")
    terminal.sees("Run it? [y/N]")
    terminal.press(b"y\r")
    terminal.sees("error: no such host")
    terminal.sees("`uv tool install mempalace` failed with exit code 1. Hint: ")
    terminal.sees("Change them? [y/N]")
    terminal.press(b"y\r")
    assert terminal.ended() == errors.EXIT_FAILURE

    terminal = setup_on_a_terminal(installed)
    terminal.sees("Run it? [y/N]")
    terminal.press(b"y\r")
    terminal.sees("Resolved 77 packages")
    terminal.sees("mempalace's hooks: add")  # its version is known now
    terminal.sees("Change them? [y/N]")
    terminal.press(b"y\r")
    terminal.sees("mempalace itself: ")
    assert terminal.ended() == 0
    shim = agent(installed)
    shim.initialize()
    assert shim.call_tool("kg_stats")["triples"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("installer", ["uv", "pipx", "pip"])
def test_setup_installs_mempalace_by_what_is_there(installer: str, installed: World, tools: Path) -> None:
    """From a package index."""
    if installer == "pip" and any(os.path.exists(f"/usr/local/bin/{name}") for name in ("uv", "pipx")):
        pytest.skip("this machine has uv or pipx for everybody")
    elif installer != "pip":
        (installed.home / f".local/bin/{installer}").symlink_to(tools / installer)
    reach = {name: value for name, value in os.environ.items() if name in PROXIES or name.startswith(TO_AN_INDEX)}
    terminal = setup_on_a_terminal(installed, **reach)
    terminal.sees(
        {"uv": "uv tool install mempalace", "pipx": "pipx install mempalace", "pip": "-m pip install"}[installer]
    )
    terminal.sees("Run it? [y/N]")
    terminal.press(b"y\r")
    terminal.sees("Change them? [y/N]", INSTALL_S)
    terminal.press(b"y\r")
    terminal.sees("mempalace itself: ")
    assert terminal.ended() == 0
    shim = agent(installed)
    shim.initialize()
    shim.call_tool("add_drawer", wing="w", room="r", content="the heron waits in the water")
    assert "heron" in json.dumps(shim.call_tool("search", query="heron", limit=1))
    assert installed.run("mempalace-broker", "stop").returncode == 0


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
