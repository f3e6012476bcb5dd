"""Where installers put programs, on PATH or not.

An app started from the Dock and sshd's non-interactive shell have a PATH without them, and whoever happens to start the
broker must not decide whether there is an engine, nor which.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from glob import glob

from .file_trust import others_write
from .private import private_home

# Below a home: of pip --user, uv and pipx; then the environments of tools, in case no link leads to them; then the one
# that `setup` makes where there is neither uv nor pipx.
_IN_HOME = (
    ".local/bin",
    ".local/share/uv/tools/{tool}/bin",
    ".local/share/pipx/venvs/{tool}/bin",
    ".local/pipx/venvs/{tool}/bin",
    "Library/Application Support/pipx/venvs/{tool}/bin",
    ".local/share/mempalace-broker/{tool}/bin",
    "Library/Python/3.*/bin",
    ".pyenv/shims",
)
_FOR_ALL = (
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/Library/Frameworks/Python.framework/Versions/3.*/bin",
)


def tool_folders(tool: str, env: Mapping[str, str], own_executable: str = "") -> list[str]:
    """Folders in which programs of the distribution `tool` may be, best first; they need not exist.

    Args:
        own_executable: our own interpreter; uv and pipx put the environments of tools side by side, wherever that is.
    """
    homes = [home for home in dict.fromkeys((private_home(), env.get("HOME", ""))) if os.path.isabs(home)]
    in_home = (found for home in homes for folder in _IN_HOME for found in _matches(home, folder.format(tool=tool)))
    for_all = (found for folder in _FOR_ALL for found in _matches("/", folder))
    return [*_beside(own_executable, tool), *in_home, *for_all]


def _beside(own_executable: str, tool: str) -> list[str]:
    """The folder of a tool beside our own environment; none where others can put one, as in /tmp."""
    tools = os.path.normpath(os.path.join(own_executable, *[os.pardir] * 3))
    try:
        shared = not own_executable or others_write(os.stat(tools))
    except OSError:
        return []
    return [] if shared else [os.path.join(tools, tool, "bin")]


def _matches(base: str, folder: str) -> list[str]:
    """The folders of that name, which may hold a `*` for the versions of Python: the newest first."""
    found = sorted(glob(folder, root_dir=base), key=_version, reverse=True) if "*" in folder else [folder]
    return [os.path.join(base, name) for name in found]


def _version(folder: str) -> tuple[int, ...]:
    return numbers_of(os.path.basename(os.path.dirname(folder)))


def shell_search(tool: str, program: str) -> str:
    """A command for any shell that runs `program`, which has to follow with its arguments, from the first of these
    folders of another machine that has it. Like a shell it ends with 127 where none has.
    """
    folders = [f'"$HOME"/{_quoted(folder)}' for folder in _IN_HOME] + [_quoted(folder) for folder in _FOR_ALL]
    looked = " ".join(folders).format(tool=tool)
    script = f'for d in {looked}; do [ -x "$d/{program}" ] && exec "$d/{program}" "$@"; done; exit 127'
    return f"exec sh -c {shlex.quote(script)} sh"


def _quoted(folder: str) -> str:
    """For sh, with its `*` left to match. No single quote may occur: csh and fish get it all in a pair of them."""
    return "*".join(f'"{part}"' for part in folder.split("*"))


def numbers_of(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: "3.11.0rc1" -> (3, 11, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def executables(name: str, folders: Iterable[str]) -> Iterator[str]:
    """Absolute paths of the programs of that name in these folders."""
    for folder in folders:
        if folder and is_executable(found := os.path.join(folder, name)):
            yield os.path.abspath(found)


def is_executable(path: str) -> bool:
    """Whether it is a file that this user may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
