"""The copies of stored indexes: a folder for each, complete once it has the stamps of what was copied."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import NamedTuple

from ..system.shared_files import SharedFolder, write_all
from .index_metadata import HEADER, META, Torn

FILES = (HEADER, "data_level0.bin", "length.bin", "link_lists.bin", META)  # in the order of writing
_COMPLETE = "complete.json"
_COMPLETE_LIMIT = 4096
_MOST = 2**63
_CHUNK, _CHUNK_OF_SYSTEM = 1 << 20, 1 << 30  # bytes

Stamps = list[tuple[int, int]]  # (modification time in ns, size) of each of FILES


class Copy(NamedTuple):
    """A complete copy: the name of its folder, and the stamps of the index when it was copied."""

    folder: str
    stamps: Stamps


def copy_index(index: SharedFolder, copies: SharedFolder, name: str, stamps: Stamps) -> None:
    """Copy an index that has these stamps, and drop its older copies. Raises OSError."""
    target = f"{name}.{stamps[-1][0]}"
    room = os.fstatvfs(copies.fd)
    if sum(size for _, size in stamps) > room.f_bavail * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), copies.path)  # a file may claim any size
    copies.remove_tree(target)
    with copies.folder(target, make=True) as copy:
        for file in FILES:
            copy_file(index, file, copy, file)
        if stamps_of(index) != stamps:
            return  # stored again meanwhile: the next round copies that; without complete.json this is no copy
        copy.replace(_COMPLETE, json.dumps(stamps).encode("ascii"))
    drop_copies(copies, name, keep=target)


def copy_file(source: SharedFolder, name: str, target: SharedFolder, new: str) -> None:
    """Copy a file to a name that is free. Raises OSError."""
    with contextlib.ExitStack() as stack:
        reading = source.open_read(name)
        stack.callback(os.close, reading)
        writing = target.open_new(new)
        stack.callback(os.close, writing)
        copy_bytes(reading, writing)


def copy_bytes(source: int, target: int) -> int:
    """Copy a file from one descriptor to another, as long as it is now and not as long as it grows; the bytes copied.

    Where the system can, it copies by itself, on some file systems without a byte being read. Raises OSError.
    """
    left = size = os.fstat(source).st_size
    if hasattr(os, "copy_file_range"):
        try:
            while left > 0 and (done := os.copy_file_range(source, target, min(left, _CHUNK_OF_SYSTEM))):
                left -= done
        except OSError:  # between these two files it can't; whatever is wrong otherwise shows below
            pass
    while left > 0:
        part = os.read(source, min(left, _CHUNK))
        if not part:
            break
        write_all(target, part)
        left -= len(part)
    return size - left


def compare_with_copy(index: SharedFolder, copies: SharedFolder, name: str) -> None:
    """Raise Torn if files changed since the copy was made but the metadata did not: a write was cut short."""
    newest, now = newest_copy(copies, name), stamps_of(index)
    if newest is not None and newest.stamps[-1] == now[-1] and newest.stamps != now:
        raise Torn("its files are newer than its metadata")


def newest_copy(copies: SharedFolder, name: str) -> Copy | None:
    """The newest complete copy of an index. Raises OSError."""
    complete = [
        Copy(copy, stamps) for copy in _copies_of(copies, name) if (stamps := _read_stamps(copies, copy)) is not None
    ]
    return max(complete, key=lambda copy: (copy.stamps[-1], copy.folder), default=None)


def _copies_of(copies: SharedFolder, name: str) -> list[str]:
    return [entry for entry in copies.names() if entry.startswith(name + ".")]


def drop_copies(copies: SharedFolder, name: str, keep: str | None) -> None:
    """Remove all copies of an index but one. Raises OSError."""
    for copy in _copies_of(copies, name):
        if copy != keep:
            with contextlib.suppress(OSError):  # the next copy of this index tries again
                copies.remove_tree(copy)


# -- stamps --------------------------------------------------------------------------------------------


def stamp_of(palace: SharedFolder, name: str) -> tuple[int, int]:
    """Stamp of the metadata of an index. Raises OSError."""
    with palace.folder(name) as index:
        return stamp(index, META)


def stamp(index: SharedFolder, file: str) -> tuple[int, int]:
    """Modification time in ns and size of a file. Raises OSError."""
    found = index.look(file)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.join(index.path, file))
    return found.st_mtime_ns, found.st_size


def stamps_of(index: SharedFolder) -> Stamps:
    """Stamps of all files of an index; the last is that of the metadata, which is written last. Raises OSError."""
    return [stamp(index, file) for file in FILES]


def unchanged(index: SharedFolder, then: Stamps | None) -> bool:
    """Whether the files of an index still have these stamps; False where none are known."""
    try:
        return then is not None and stamps_of(index) == then
    except OSError:
        return False


def _read_stamps(copies: SharedFolder, copy: str) -> Stamps | None:
    """Stamps of the index when it was copied; None if the copy is not complete."""
    try:
        with copies.folder(copy) as folder:
            return parse_stamps(folder.read(_COMPLETE, _COMPLETE_LIMIT) or b"")
    except OSError:
        return None


def parse_stamps(data: bytes) -> Stamps | None:
    """Read the stamps in complete.json from any bytes; None if they are not such stamps."""
    try:
        found = json.loads(data) if len(data) <= _COMPLETE_LIMIT else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != len(FILES):
        return None
    if not all(isinstance(stamp, list) and len(stamp) == 2 and all(map(_is_whole, stamp)) for stamp in found):
        return None
    return [(stamp[0], stamp[1]) for stamp in found]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_MOST <= value < _MOST
