"""Two distributions: each declares the packages that it imports, and installs only its own programs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from devbox.tests.imagebox import REPO


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def names(requirements: list[str]) -> set[str]:
    """The names of some requirements."""
    return {re.split(r"[\[<>=~! ]", one)[0].replace("-", "_") for one in requirements}


def imported(folder: Path) -> set[str]:
    """The top-level packages that the modules in a folder import, without the standard library's."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def test_the_programs_of_the_container_need_the_plain_dependencies_and_the_command_its_extra() -> None:
    declared, source = project(REPO / "devbox"), REPO / "devbox/src/pi_devbox"
    plain, extra = names(declared["dependencies"]), names(declared["optional-dependencies"]["image"])
    assert imported(source / "dotwatch") | imported(source / "expose") == plain
    assert imported(source) == plain | extra


def test_the_broker_brings_no_program_of_the_devbox() -> None:
    broker, devbox = project(REPO), project(REPO / "devbox")
    assert set(devbox["scripts"]) == {"dot-watch", "studio-expose", "pi-devbox"}
    assert not set(devbox["scripts"]) & set(broker["scripts"])
    assert not (REPO / "src/pi_devbox").exists()
    assert "pi_devbox" not in imported(REPO / "src")
