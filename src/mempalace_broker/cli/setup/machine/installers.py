"""Decides how mempalace would be installed on this machine: with the installer that is here, else with pip."""

from __future__ import annotations

import shlex
from typing import NamedTuple

DISTRIBUTION = "mempalace"
# Below the home; find_engine looks there, too.
FOLDER = ".local/share/mempalace-broker/mempalace"
_BY_UV, _BY_PIPX = "/uv/tools/", "/pipx/venvs/"


class Installation(NamedTuple):
    """The commands that install mempalace, in order. `folder`: the environment that they make, "" for an installer's
    own. `hint`: the next step where one of them fails.
    """

    commands: tuple[tuple[str, ...], ...]
    folder: str
    hint: str

    @property
    def words(self) -> str:
        """The commands as one line for a shell."""
        return " && ".join(map(shlex.join, self.commands))


def choose_installation(uv: str, pipx: str, own_executable: str, home: str) -> Installation:
    """Choose uv or pipx, first the one that installed us; without either, an environment of our own, filled by pip.

    Args:
        uv, pipx: how to call them, "" for one that isn't here.
        own_executable: our interpreter.
    """
    by_uv = ((uv, "tool", "install", DISTRIBUTION),) if uv else ()
    by_pipx = ((pipx, "install", DISTRIBUTION),) if pipx else ()
    found = by_pipx or by_uv if _BY_PIPX in own_executable else by_uv or by_pipx
    if found:
        return Installation(found, "", "see its output above; behind a proxy, set HTTPS_PROXY")
    folder = f"{home}/{FOLDER}"
    make = (own_executable, "-m", "venv", "--clear", folder)
    fill = (f"{folder}/bin/python", "-m", "pip", "install", "--disable-pip-version-check", DISTRIBUTION)
    hint = "see its output above; Debian's Python needs `apt install python3-venv` for this, or install uv"
    return Installation((make, fill), folder, hint)
