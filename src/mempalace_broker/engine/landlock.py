"""Landlock: from Linux 5.19 on the kernel keeps a thread, and whatever it starts, from writing outside some folders.

It holds for whatever opens a file, C libraries included, and looks at the file itself: a link leads nowhere else.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable

LINUX = bool(
    sys.platform.startswith("linux")
)  # a plain boolean: a type checker for one system checks the code for both
OLDEST = 2  # the first version that allows renames from one folder to another
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture that CPython supports
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38

_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_REMOVE = 1 << 4 | 1 << 5
_MAKE = 0b111_1111 << 6  # devices, folders, files, sockets, FIFOs, links
_MOVE = 1 << 13
_HAS_TRUNCATE = 3


def version() -> int:
    """The version of Landlock in the running kernel, 0 where it has none or it is switched off."""
    if not LINUX:
        return 0
    try:
        return max(0, _call(_CREATE_RULESET, None, 0, _ASK_VERSION))
    except OSError:
        return 0


def restrict_writes(paths: Iterable[str]) -> None:
    """Let this thread, and all threads and processes that it starts, write only below `paths`; for ever.

    Args:
        paths: folders and files, links followed; one that is missing or can't be opened is left out.

    Raises:
        OSError: the kernel refuses; then nothing is restricted.
    """
    files = _WRITE_FILE | (_TRUNCATE if version() >= _HAS_TRUNCATE else 0)
    folders = files | _REMOVE | _MAKE | _MOVE
    attributes = struct.pack("=Q", folders)
    rules = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in paths:
            _allow(rules, path, files, folders)
        if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise _failed()
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, files: int, folders: int) -> None:
    try:
        fd = os.open(path, getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = folders if stat.S_ISDIR(os.fstat(fd).st_mode) else files
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", allowed, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: bytes | int | None) -> int:
    typed = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *typed))
    if result < 0:
        raise _failed()
    return result


def _failed() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
