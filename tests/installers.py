"""The wheel of this checkout, and everything that installs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.harness import REPO, engine_python

OLD_PIP = "pip==23.2"


def run(*argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        argv, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=REPO)
    (made,) = folder.iterdir()
    return made


def uv_and_pipx(folder: Path) -> Path:
    """The folder of both programs, installed from a package index."""
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "uv", "pipx")
    return folder / "bin"


def old_pip(folder: Path, wheel: Path, tools: Path) -> Path:
    return _pip(folder, OLD_PIP, str(wheel))


def new_pip(folder: Path, wheel: Path, tools: Path) -> Path:
    return _pip(folder, "pip", str(wheel))


def editable(folder: Path, wheel: Path, tools: Path) -> Path:
    checkout = folder / "checkout"
    shutil.copytree(REPO / "src", checkout / "src")
    shutil.copytree(REPO / "docs" / "man", checkout / "docs" / "man")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPO / name, checkout)
    return _pip(folder, "pip", "--editable", str(checkout))


def _pip(folder: Path, pip: str, *what: str) -> Path:
    run(sys.executable, "-m", "venv", folder / "v")
    python = folder / "v" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--upgrade", pip)
    run(python, "-m", "pip", "install", "--quiet", *what)
    return python.parent


def uv_tool(folder: Path, wheel: Path, tools: Path) -> Path:
    env = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin"), "HOME": str(folder)}
    run(tools / "uv", "tool", "install", "--quiet", "--python", sys.executable, wheel, env=env)
    return folder / "bin"


def pipx(folder: Path, wheel: Path, tools: Path) -> Path:
    env = {"PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(folder / "bin"), "HOME": str(folder)}
    run(tools / "pipx", "install", "--quiet", "--python", sys.executable, wheel, env=env)
    return folder / "bin"


def as_uv_tool(home: Path) -> None:
    _link_engine(home, home / ".local/share/uv/tools/mempalace")


def as_pipx_app(home: Path) -> None:
    _link_engine(home, home / ".local/pipx/venvs/mempalace")


def _link_engine(home: Path, environment: Path) -> None:
    environment.parent.mkdir(parents=True, exist_ok=True)
    environment.symlink_to(engine_python("newest").parent.parent)
    (home / ".local/bin").mkdir(exist_ok=True)
    (home / ".local/bin/mempalace-mcp").symlink_to(environment / "bin/mempalace-mcp")
