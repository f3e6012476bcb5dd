"""Keeps a guest's mine inside the folder that it named.

mempalace does not follow links to files, but whoever can write the folder can swap a file or a folder for a link
between its look and its open. So every file that a confined call opens for reading is looked at again once it is open:
the kernel says which one it became. What mempalace opens to write is its own, under names that no guest chooses.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable

from .shared_opens import path_of, under

_SYSTEM = ("/usr", "/lib", "/lib64", "/opt", "/dev", "/proc", "/Library", "/System")
_OPENER = 5  # place of open()'s argument of that name, behind the mode

_state = threading.local()
_NOT_CONFINED = contextlib.nullcontext()


class Confinement:
    """Which files confined calls may read besides those of their own folder.

    Args:
        own: folders that mempalace works with: palace, state root, its folders in HOME.
    """

    def __init__(self, own: Sequence[str]) -> None:
        folders = [*own, sys.prefix, sys.base_prefix, *filter(None, sys.path), *_SYSTEM]
        self._own = tuple(os.path.realpath(folder) for folder in folders)

    def confine(self, folders: Sequence[str] | None) -> contextlib.AbstractContextManager[None]:
        """Confine what this thread opens within the block to `folders`, real paths; None: not at all.

        A call that runs between two files of a confined mine is judged by its own folders.
        """
        if folders is None and getattr(_state, "allowed", None) is None:
            return _NOT_CONFINED
        return self._confined(folders)

    @contextlib.contextmanager
    def _confined(self, folders: Sequence[str] | None) -> Iterator[None]:
        before = getattr(_state, "allowed", None)
        if folders is not None:
            _install()
        _state.allowed = None if folders is None else (tuple(folders), self._own)
        try:
            yield
        finally:
            _state.allowed = before


def _check(fd: int, name: object) -> None:
    """Raise PermissionError where the open file is none that the running call may read: by a name in the guest's folder
    only what lies in that folder, and nothing else that mempalace or the system keeps.
    """
    allowed = getattr(_state, "allowed", None)
    if allowed is None:
        return
    folders, own = allowed
    path, named = path_of(fd), os.path.abspath(os.fsdecode(name))  # type: ignore[arg-type]  # whatever open() took
    if not any(under(named, folder) for folder in folders):
        folders += own
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        raise PermissionError(errno.EACCES, "it is not a regular file", os.fspath(name))  # type: ignore[call-overload]  # whatever open() took
    if path.startswith("/") and not any(under(path, folder) for folder in folders):
        raise PermissionError(errno.EACCES, "it lies outside the folder that the guest named", os.fspath(name))  # type: ignore[call-overload]  # whatever open() took


def _install() -> None:
    """Put our open() in place of Python's own, once in the life of the engine."""
    if getattr(builtins.open, "confines", False):
        return
    checked: Any = _checked_open(builtins.open, os.open)
    checked.confines = True
    builtins.open = io.open = checked
    os.open = _checked_os_open(os.open)


def _checked_open(plain: Callable[..., Any], os_open: Callable[..., int]) -> Callable[..., Any]:
    def checked(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if _is_confined() and not isinstance(file, int) and "r" in mode and "+" not in mode:
            given = args[_OPENER] if len(args) > _OPENER else options.get("opener")
            options["opener"] = _opener(given or os_open)
            args = args[:_OPENER]
        return plain(file, mode, *args, **options)

    return checked


def _checked_os_open(plain: Callable[..., int]) -> Callable[..., int]:
    def checked(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if not _is_confined() or flags & (os.O_WRONLY | os.O_RDWR):
            return plain(path, flags, *args, **options)
        return _opener(lambda name, safe: plain(name, safe, *args, **options))(path, flags)

    return checked


def _is_confined() -> bool:
    return getattr(_state, "allowed", None) is not None


def _opener(plain: Callable[[Any, int], int]) -> Callable[[Any, int], int]:
    """An opener that never waits: a file may be swapped for a FIFO to which nobody writes."""

    def opened(name: Any, flags: int) -> int:
        fd = plain(name, flags | os.O_NONBLOCK)
        try:
            _check(fd, name)
        except BaseException:
            os.close(fd)
            raise
        return fd

    return opened
