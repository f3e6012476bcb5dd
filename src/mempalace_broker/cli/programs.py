"""Where our own programs are, for files that others start them from: by a path that outlives an upgrade."""

from __future__ import annotations

import os
import sys

from ..errors import BrokerError
from ..system.program_folders import executables, tool_folders

PROGRAMS = ("mempalace-broker", "mp-shim")
_TEMPORARY = ("/.cache/", "/Library/Caches/")  # of `uvx` and `pipx run`


def own_program(name: str) -> str:
    """The absolute path of one of PROGRAMS: beside the one that runs, as it was called (for uv and pipx a link), else
    beside our interpreter, else where installers put programs.

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
