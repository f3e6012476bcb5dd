"""Keeps what mempalace opens in the folders that others can write to inside them.

mempalace opens its write-ahead log, tunnels, hallways and locks by their names in the palace and in the state root, and
follows links. Whoever has such a folder mounted could make it append to any file of the user's, or read one. So every
file that Python opens below these folders must lie in them and be a regular one. Databases are not opened by Python;
they are checked before an engine starts (system/palace_stores).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, Callable

from ..protocol.tools import rule_for
from ..system import darwin, kernel

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REWRITES = "mempalace_hook_settings"
_LINKED = "config.json"  # a link is the user's own way to keep it elsewhere: it is read, and not written
_PARSED = (".json", ".txt")  # files that mempalace reads as a whole: a few kilobytes of its own, or of the user's
_MAX_PARSED = 32 << 20
_OPENER = 6  # place of open()'s argument of that name, behind the file


def under(path: str, folder: str) -> bool:
    """Whether a path is that folder or lies below it, by its name."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def path_of(fd: int) -> str:
    """The real path of an open file; what has none, such as a pipe, does not begin with a slash."""
    if kernel.MACOS:
        return darwin.path_of(fd)
    return os.readlink(f"/proc/self/fd/{fd}")


class OpenGuard:
    """Guards opens below some folders.

    Args:
        folders: what is opened below one of them must lie in one of them. Names in HOME that lead there count, too.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._open = os.open
        self._real = tuple(map(self._real_path, folders))
        home = os.path.join(os.path.expanduser("~"), ".mempalace")
        aliases = [home] if self._is_inside(os.path.realpath(home)) else []
        self._names = (*folders, *self._real, *aliases)

    def install(self) -> None:
        """Put guarded functions in place of Python's own, for the life of this process."""
        builtins.open = io.open = self._guarded_open(builtins.open)
        os.open = self._guarded_os_open
        os.supports_dir_fd.add(os.open)

    def _guarded_open(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(file: Any, *args: Any, **options: Any) -> Any:
            if self._guards(file):
                given = args[_OPENER] if len(args) > _OPENER else options.get("opener")
                options["opener"] = self._opener(given or (lambda name, flags: self._open(name, flags, 0o666)))
            return plain(file, *args[:_OPENER], **options)

        return guarded

    def _guarded_os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None or not self._guards(path):
            return self._open(path, flags, mode, dir_fd=dir_fd)
        return self._opener(lambda name, safe: self._open(name, safe, mode))(path, flags)

    def _guards(self, file: Any) -> bool:
        if isinstance(file, int):
            return False
        name = os.path.abspath(os.fsdecode(file))
        return any(under(name, folder) for folder in self._names)

    def _opener(self, plain: Callable[[Any, int], int]) -> Callable[[Any, int], int]:
        """An opener that makes and truncates nothing before it knows where that is."""

        def opened(file: Any, flags: int) -> int:
            name = os.path.abspath(os.fsdecode(file))
            writes = bool(flags & _WRITES) and not os.path.isdir(name)  # tempfile opens files by their folder
            _refuse_what_blocks(name)
            if writes and not self._is_inside(self._real_path(os.path.dirname(name))):
                raise _refused(name, "a link leads out of the folder")
            fd = plain(file, (flags & ~os.O_TRUNC) | os.O_NOFOLLOW if writes else flags)
            try:
                if not self._is_inside(path_of(fd)) and (writes or os.path.basename(name) != _LINKED):
                    raise _refused(name, "a link leads out of the folder")
                if writes and flags & os.O_TRUNC:
                    os.ftruncate(fd, 0)
                elif not flags & os.O_WRONLY and name.endswith(_PARSED) and os.fstat(fd).st_size > _MAX_PARSED:
                    print(f"{name} is not read: it has more than {_MAX_PARSED:,} bytes", file=sys.stderr, flush=True)
                    raise _refused(name, "it is too large")
            except BaseException:
                os.close(fd)
                raise
            return fd

        return opened

    def _real_path(self, folder: str) -> str:
        try:
            fd = self._open(folder, _FOLDER)
        except OSError:
            return os.path.realpath(folder)
        try:
            return path_of(fd)  # as the system spells it
        finally:
            os.close(fd)

    def _is_inside(self, real: str) -> bool:
        return any(under(real, folder) for folder in self._real)


def refuse_to_write_through(config: str, tool: str, arguments: dict[str, Any]) -> str | None:
    """Why a call is refused that rewrites config.json, to which mempalace follows links; None if it isn't."""
    if tool != _REWRITES or not rule_for(tool).may_write(arguments) or not os.path.islink(config):
        return None
    return f"{tool} was not executed: {config} is a link. Hint: change the file to which it leads in an editor."


def _refuse_what_blocks(name: str) -> None:
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _refused(name, "it is not a regular file")


def _refused(name: str, why: str) -> PermissionError:
    return PermissionError(errno.EACCES, f"not opened, because others can write there and {why}; remove it", name)
