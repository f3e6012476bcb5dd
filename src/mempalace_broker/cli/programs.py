"""Where our own programs are, for files that others start them from; and running other people's programs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from ..errors import BrokerError
from ..system.program_folders import executables, tool_folders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAMS = ("mempalace-broker", "mp-shim")
_TEMPORARY = ("/.cache/", "/Library/Caches/")  # of `uvx` and `pipx run`
PROGRAM_S = 60.0  # for a program that we run


def own_program(name: str) -> str:
    """The absolute path of one of PROGRAMS, one that outlives an upgrade.

    It is beside the program that runs, as that was called (for uv and pipx a link), else beside our interpreter, else
    where installers put programs.

    Raises:
        BrokerError: there is none that stays.
    """
    called = os.path.abspath(sys.argv[0])
    beside = [os.path.dirname(called)] if os.path.basename(called) in PROGRAMS else []
    folders = [*beside, os.path.dirname(sys.executable), *tool_folders("mempalace-broker", os.environ, sys.executable)]
    for path in executables(name, folders):
        if not any(part in os.path.realpath(path) for part in _TEMPORARY):
            return path
    raise BrokerError(
        f"{name} is not installed: what runs here is a copy in a cache, or a module.",
        hint="uv tool install mempalace-broker, or pipx install mempalace-broker; then run that one",
    )


def run_program(argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program without input; one that can't be run, or does not end, counts as failed and says so on stderr."""
    try:
        return subprocess.run(
            argv,
            env=env,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=PROGRAM_S,
            check=False,
        )
    except OSError as exc:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: {exc.strerror or exc}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer in {PROGRAM_S:g} s")
