"""Copies files: whole ones ahead, without blocking anybody, and then only what has changed since.

A clone (btrfs, xfs, APFS) shares its blocks with the original and costs nothing. Elsewhere the copy is compared with
the original block by block, which reads both from memory.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from ...system.shared_files import SharedFolder

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 1 << 20
_FICLONE = 0x40049409
_HERE = -2  # AT_FDCWD of macOS


def copy_file(source: str, target: str, advance: Callable[[int], None]) -> None:
    """Copy a file to a name that is free, 0600. Raises OSError."""
    with open_source(source) as reading:
        if sys.platform == "darwin" and _clone_to_name(reading.fileno(), target):
            return
        _copy(reading, target, advance)


def open_source(path: str) -> BinaryIO:
    """Open a file that others may have put there: no link is followed, and it must be a regular file of ours.

    Raises:
        OSError: as the system reports it, or Untrusted.
    """
    folder, name = os.path.split(path)
    with SharedFolder.open(folder) as opened:
        return os.fdopen(opened.open_read(name), "rb", buffering=0)


def _copy(reading: BinaryIO, target: str, advance: Callable[[int], None]) -> None:
    with open(target, "xb", opener=_private) as writing:
        if sys.platform == "linux" and _clone(reading.fileno(), writing.fileno()):
            return
        while block := reading.read(_BLOCK):
            writing.write(block)
            advance(len(block))


def catch_up(source: int, target: str) -> int:
    """Make `target`, an earlier copy of the open file `source`, equal to it; how many bytes were different."""
    changed = 0
    with open(target, "r+b") as writing:
        size = os.fstat(source).st_size
        for offset in range(0, size, _BLOCK):
            block = os.pread(source, _BLOCK, offset)
            if block != os.pread(writing.fileno(), _BLOCK, offset):
                changed += os.pwrite(writing.fileno(), block, offset)
        os.ftruncate(writing.fileno(), size)
    return changed


def digest(path: str) -> str:
    """The SHA-256 of a file. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: str) -> None:
    """Write a file or folder out to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another filesystem, or one that can't
        return False
    return True


def _clone_to_name(source: int, target: str) -> bool:
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.fclonefileat(source, _HERE, os.fsencode(target), 0) == 0)
    except (OSError, AttributeError):
        return False
