"""The wheel, installed by pip into folders with names that a `#!` line can't hold: both programs start."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mempalace_broker import __version__
from tests.harness import PROGRAMS, REPO

# pip quotes the path with "...": a folder with `"` or `$` in its name breaks every program that pip installs.
FOLDERS = ("Application Support of 'Größe' メモリ", "long-" + "x" * 195)


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (made,) = folder.iterdir()
    return made


@pytest.mark.parametrize("name", FOLDERS)
def test_both_programs_start_from_any_folder(
    name: str, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))  # click, instead of a package index
    environment = tmp_path / name
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    for program in PROGRAMS:
        script = environment / "bin" / program
        assert os.access(script, os.X_OK)
        assert __version__ in run(script, "--version")
