"""Copies files: whole ones ahead, without blocking anybody, and then only what has changed since.

A clone (btrfs, xfs, APFS) shares its blocks with the original and costs nothing. Elsewhere the copy is compared with
the original, block by block. Both are mapped into memory by then, so that it costs one pass over what the system has
cached: 280 MB take 30 ms of a processor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
from typing import TYPE_CHECKING, BinaryIO

from ...system.kernel import LINUX, MACOS
from ...system.shared_files import SharedFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK = 1 << 18
_FICLONE = 0x40049409
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def copy_file(source: str, target: str, advance: Callable[[int], None], root: str = "", into: str = "") -> bool:
    """Copy a file to a name that is free, 0600; whether that was a clone. Raises as `open_source`.

    Args:
        root: as of `open_source`. into: the same for the target; folders below it are made.
    """
    with open_source(source, root) as reading, folder_of(target, into, make=True) as (folder, name):
        if MACOS and _clone_to_name(reading.fileno(), folder.fd, name):
            return True
        return _copy(reading, folder.open_new(name), advance)


def open_source(path: str, root: str = "") -> BinaryIO:
    """Open a file that others may have put there: it must be a regular file of ours, and not behind a link.

    Args:
        root: the folder below which no link is followed; by default the file's own.

    Raises:
        OSError: as the system reports it, or Untrusted.
    """
    with folder_of(path, root) as (folder, name):
        return os.fdopen(folder.open_read(name), "rb", buffering=0)


@contextlib.contextmanager
def folder_of(path: str, root: str = "", *, make: bool = False) -> Iterator[tuple[SharedFolder, str]]:
    """The folder of a file, reached from `root` without a link, and the file's name in it. Raises OSError."""
    root = root or os.path.dirname(path)
    *steps, name = os.path.relpath(path, root).split(os.sep)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(SharedFolder.open(root))
        for step in steps:
            folder = stack.enter_context(folder.folder(step, make=make))
        yield folder, name


def _copy(reading: BinaryIO, target: int, advance: Callable[[int], None]) -> bool:
    with open(target, "wb") as writing:
        if LINUX and _clone(reading.fileno(), writing.fileno()):
            return True
        left = os.fstat(reading.fileno()).st_size  # as long as it is now, and not as long as it grows
        check_room(writing.fileno(), left)
        while left > 0 and (block := reading.read(min(left, _BLOCK))):
            writing.write(block)
            advance(len(block))
            left -= len(block)
    return False


def check_room(place: int | str, size: int) -> None:
    """Raise OSError unless that many bytes fit on the disk of a file or folder: a sparse file may claim any size."""
    room = os.statvfs(place)
    if size > room.f_bavail * room.f_frsize:
        raise OSError(errno.ENOSPC, f"a file of {size:,} bytes does not fit")


class Twin:
    """A file and its copy, made before. Not for files that others may truncate while `catch_up` runs."""

    def __init__(self, source: str, target: str, root: str = "") -> None:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._source = stack.enter_context(open_source(source, root)).fileno()
            self._target = stack.enter_context(open(target, "r+b", buffering=0)).fileno()
            self._mapped = min(os.fstat(self._source).st_size, os.fstat(self._target).st_size)
            self._bases = [self._map(stack, fd) for fd in (self._source, self._target) if self._mapped]
            self._stack = stack.pop_all()

    def _map(self, stack: contextlib.ExitStack, fd: int) -> int:
        """The address of a mapping of a file; nothing is written to it."""
        view = stack.enter_context(mmap.mmap(fd, self._mapped, access=mmap.ACCESS_COPY))
        first = ctypes.c_char.from_buffer(view)
        base = ctypes.addressof(first)
        del first  # else the mapping could not be closed
        return base

    def is_of(self, path: str) -> bool:
        """Whether that path still names the file."""
        return os.path.samestat(os.fstat(self._source), os.lstat(path))

    def catch_up(self) -> int:
        """Make the copy equal to the file as it is now; how many bytes were written."""
        size, written = os.fstat(self._source).st_size, 0
        common = min(size, self._mapped)
        check_room(self._target, size - common)
        for offset in range(0, common, _BLOCK):
            count = min(_BLOCK, common - offset)
            if self._differ(offset, count):
                written += self._write(offset, count)
        for offset in range(common, size, _BLOCK):
            written += self._write(offset, _BLOCK)
        os.ftruncate(self._target, size)
        self._mapped = common
        return written

    def _differ(self, offset: int, count: int) -> bool:
        if LINUX:
            return bool(_memcmp(*(base + offset for base in self._bases), count))
        return os.pread(self._source, count, offset) != os.pread(self._target, count, offset)  # mappings may be old

    def _write(self, offset: int, count: int) -> int:
        return os.pwrite(self._target, os.pread(self._source, count, offset), offset)

    def close(self) -> None:
        """Close both."""
        self._stack.close()


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


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another filesystem, or one that can't
        return False
    return True


def _clone_to_name(source: int, folder: int, name: str) -> bool:
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.fclonefileat(source, folder, os.fsencode(name), 0) == 0)
    except (OSError, AttributeError):
        return False
