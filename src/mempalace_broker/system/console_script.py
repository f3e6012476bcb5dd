"""From a console script, as installers write it, to the Python that it runs with. Reads files; starts nothing."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from .program_folders import executables, is_executable, numbers_of

_HEAD_BYTES = 4096  # the first lines of a console script name its interpreter
_MAX_HOPS = 4  # wrapper -> script -> interpreter


def _is_python(path: str) -> bool:
    return re.fullmatch(r"(python|pypy)[\d.]*[a-z]?", os.path.basename(path)) is not None


def interpreters_of(path: str, path_env: str, hops: int = 0) -> Iterator[str]:
    """Interpreters that an executable may run with, most likely first."""
    if hops > _MAX_HOPS:
        return
    if _is_python(path):
        yield os.path.abspath(path)
        return
    for target in _script_targets(path, path_env):
        yield from interpreters_of(target, path_env, hops + 1)
    # A binary launcher, or a wrapper that we can't read: its interpreter is in the same folder.
    for folder in dict.fromkeys((os.path.dirname(path), os.path.dirname(os.path.realpath(path)))):
        for name in ("python3", "python"):
            if os.path.isfile(os.path.join(folder, "pyvenv.cfg")) or _in_environment(folder):
                neighbour = os.path.join(folder, name)
                if is_executable(neighbour):
                    yield neighbour


def _in_environment(folder: str) -> bool:
    return os.path.isfile(os.path.join(os.path.dirname(folder), "pyvenv.cfg"))


def _script_targets(script: str, path_env: str) -> Iterator[str]:
    """Programs that a script runs: by its first line, by `exec` in a shell script, or by pyenv's layout."""
    try:
        with open(script, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return
    if not head.startswith(b"#!"):
        return
    first, _, rest = os.fsdecode(head).partition("\n")
    runner = _words(first[2:])
    if runner and os.path.basename(runner[0]) == "env":
        runner = [word for word in runner[1:] if not word.startswith("-") and "=" not in word]
    if not runner:
        return
    if _is_python(runner[0]):
        target = runner[0] if os.sep in runner[0] else next(executables(runner[0], path_env.split(os.pathsep)), "")
        if target and is_executable(target):
            yield target
        return
    yield from _exec_targets(rest, script)
    yield from _pyenv_versions(script)


def _exec_targets(text: str, script: str) -> Iterator[str]:
    # pip and uv write `'''exec' '/long path/python' "$0" "$@"` if the first line can't hold the path.
    home = os.path.dirname(os.path.realpath(script))
    text = re.sub(r'"\$\(dirname -- "\$\(realpath -- "\$0"\)"\)"', lambda _: shlex.quote(home), text)
    for line in text.splitlines():
        match = re.match(r"\s*(?:''')?exec'?\s+(.*)", line)
        words = _words(match[1]) if match else []
        target = next((word for word in words if not word.startswith("-") and "=" not in word), "")
        if os.path.isabs(target) and is_executable(target) and os.path.realpath(target) != os.path.realpath(script):
            yield target


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # unbalanced quotes: not a line that we understand
        return []


def _pyenv_versions(script: str) -> Iterator[str]:
    """pyenv's shims all look alike; return the real scripts in its versions, newest first."""
    shims = Path(script).parent
    if shims.name != "shims":
        return
    found = [path for path in shims.parent.glob(f"versions/*/bin/{Path(script).name}") if is_executable(str(path))]
    yield from sorted(map(str, found), key=lambda path: numbers_of(Path(path).parts[-3]), reverse=True)
