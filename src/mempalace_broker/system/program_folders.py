"""Where installers put programs, on PATH or not.

An app started from the Dock and sshd's non-interactive shell have a PATH without them, and whoever happens to start the
broker must not decide whether there is an engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from .private import private_home

_IN_HOME = (  # of pip --user, uv and pipx; then the environments of tools, in case no link leads to them
    ".local/bin",
    ".local/share/uv/tools/mempalace/bin",
    ".local/share/pipx/venvs/mempalace/bin",
    ".local/pipx/venvs/mempalace/bin",
    "Library/Application Support/pipx/venvs/mempalace/bin",
    ".pyenv/shims",
)
_FOR_ALL = ("/opt/homebrew/bin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/bin")


def tool_folders(env: Mapping[str, str]) -> list[str]:
    """Folders of programs in the user's home, in $HOME where that is another one, then Homebrew's."""
    homes = [home for home in dict.fromkeys((private_home(), env.get("HOME", ""))) if os.path.isabs(home)]
    folders = [folder for home in homes for folder in (*_in(home), *_of_framework_pythons(home))]
    return [*folders, *_FOR_ALL]


def _in(home: str) -> list[str]:
    return [os.path.join(home, folder) for folder in _IN_HOME]


def _of_framework_pythons(home: str) -> list[str]:
    """pip --user on macOS, newest Python first."""
    found = map(str, Path(home).glob("Library/Python/3.*/bin"))
    return sorted(found, key=lambda path: _minor(Path(path).parts[-2]), reverse=True)


def _minor(version: str) -> int:
    minor = version.removeprefix("3.")
    return int(minor) if minor.isdecimal() else -1


def executables(name: str, path: str) -> Iterator[str]:
    """Absolute paths of the programs of that name in the folders of `path`, written as PATH is."""
    for folder in path.split(os.pathsep):
        if folder and is_executable(found := os.path.join(folder, name)):
            yield os.path.abspath(found)


def is_executable(path: str) -> bool:
    """Whether it is a file that this user may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
