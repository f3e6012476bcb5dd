"""The wheel, installed by whatever installs programs, into folders with names that a `#!` line can't hold."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from mempalace_broker import __version__
from tests.harness import PROGRAMS, World, engine_python, require_engine
from tests.installers import as_pipx_app, as_uv_tool, editable, new_pip, old_pip, pipx, run, uv_tool

ODD = "Application Support of 'Größe' メモリ"
LONG = "long-" + "x" * 195
# pip quotes the path with "...": a folder with `"` or `$` in its name breaks every program that pip installs.
QUOTED = 'a "quoted" $HOME'


@pytest.mark.parametrize("name", [ODD, LONG])
def test_both_programs_start_from_any_folder(name: str, wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / name
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    for program in PROGRAMS:
        script = environment / "bin" / program
        assert os.access(script, os.X_OK)
        env = {"PYTHONPATH": sysconfig.get_path("purelib")}  # click, instead of a package index
        assert __version__ in run(script, "--version", env=env)
        assert (environment / "share/man/man1" / f"{program}.1").stat().st_size > 1000


# --- every installer, with all that it needs from a package index

INSTALLERS = (old_pip, new_pip, editable, uv_tool, pipx)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [ODD, LONG, QUOTED])
@pytest.mark.parametrize("install", INSTALLERS, ids=lambda install: install.__name__)
def test_a_call_through_what_was_installed(
    install: Callable[[Path, Path, Path], Path],
    name: str,
    wheel: Path,
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Programs, home and palace below one folder."""
    require_engine("newest")
    if name == QUOTED and install in {old_pip, new_pip, editable}:
        pytest.skip("a limit of pip's, for every program")
    folder = tmp_path / name
    folder.mkdir()
    programs = install(folder, wheel, tools)
    for program in PROGRAMS:
        assert __version__ in run(programs / program, "--version", env={"PYTHONPATH": ""})
    monkeypatch.setenv("MPB_BIN", str(programs))
    with World("newest", parent=folder) as world:
        assert (ensured := world.cli("ensure")).returncode == 0, ensured.stderr
        shim = world.shim()
        shim.initialize()
        shim.call_tool("kg_add", subject="folder", predicate="has", object="a call")
        assert [fact["object"] for fact in shim.call_tool("kg_query", entity="folder")["facts"]] == ["a call"]
        assert world.cli("stop").returncode == 0


# --- broker and mempalace apart: the engine does not depend on who starts first


def by_pip_for_the_user(home: Path) -> None:
    python = engine_python("newest")
    base = python.resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = home / ".local/lib" / version / "site-packages"
    site.parent.mkdir(parents=True)
    site.symlink_to(python.parent.parent / "lib" / version / "site-packages")
    script = home / ".local/bin/mempalace-mcp"
    script.parent.mkdir()
    script.write_text(f"#!{base}\nfrom mempalace.mcp_server import main\nmain()\n")
    script.chmod(0o755)


SHORT = "/usr/bin:/bin:/usr/sbin:/sbin"
slow = pytest.mark.slow


@pytest.mark.engine
@pytest.mark.parametrize(
    "install",
    [by_pip_for_the_user, pytest.param(as_uv_tool, marks=slow), pytest.param(as_pipx_app, marks=slow)],
    ids=lambda install: install.__name__,
)
def test_whoever_starts_first_the_engine_is_the_same(install: Callable[[Path], None]) -> None:
    """With the PATH of an app from the Dock or of sshd, and with a terminal's, which has another mempalace first."""
    require_engine("newest")
    require_engine("3.4.0")
    with World(None) as world:
        install(world.home)
        terminal = f"{engine_python('3.4.0').parent}:{world.home}/.local/bin:{SHORT}"
        started = []
        for path in (SHORT, terminal, SHORT):
            assert (ensured := world.cli("ensure", env={"PATH": path})).returncode == 0, ensured.stderr
            engine = world.broker().status()["engine"]
            started.append((engine["interpreter"], engine["version"], engine["source"]))
            assert world.cli("stop", "--now").returncode == 0
        assert len(set(started)) == 1, started
        assert started[0][2].startswith("mempalace-mcp installed"), started
