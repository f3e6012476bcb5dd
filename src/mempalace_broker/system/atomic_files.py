"""Small files that other processes read while we replace them: they see a whole file, and only its owner removes it.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO under that name must not hang us


def _name_beside(path: str, kind: str) -> str:
    """A name beside `path` that no other process uses."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.{kind}")


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, also after a power cut.

    Writes a temp file beside it, then fsync, rename, fsync of the directory. Removes the temp file if anything fails.

    Raises:
        OSError: as the system reports it; `path` is untouched then.
    """
    temp = _name_beside(path, "tmp")
    fd = os.open(temp, _CREATE, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temp, path)
    except BaseException:  # an interrupt, too, must leave no temp file
        unlink_quietly(temp)
        raise
    _sync_folder(path)


def read_bytes(path: str, limit: int) -> bytes | None:
    """Return the content of `path`, None if there is no such file.

    Reads at most `limit` + 1 bytes, so that the caller can tell a longer file from one that just fits.

    Raises:
        OSError: it is there but can't be read (permissions, a directory, a symlink).
    """
    try:
        fd = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        parts: list[bytes] = []
        left = limit + 1
        while left > 0:
            part = os.read(fd, left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def remove_if(path: str, predicate: Callable[[bytes], bool], limit: int = 1 << 20) -> bool:
    """Remove `path` if `predicate(content)`; True if it was removed by this call.

    A process that replaces the file between our read and our removal keeps it: the file is moved aside first and read
    again, and put back (never over a newer one) if it is another process's by now.

    Raises:
        OSError: it can't be read or moved.
    """
    data = read_bytes(path, limit)
    if data is None or not predicate(data):
        return False
    aside = _name_beside(path, "old")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    try:
        moved = read_bytes(aside, limit)
        mine = moved is not None and predicate(moved)
        if not mine:
            try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
                os.link(aside, path)
            except FileExistsError:
                pass  # a newer file is in place already
    finally:
        unlink_quietly(aside)
    _sync_folder(path)
    return mine


def remove_temp_files(path: str) -> int:
    """Remove the temp files of `path` that killed writers left behind, and count them. Only its one owner may."""
    folder, name = os.path.split(path)
    count = 0
    for entry in os.listdir(folder or "."):
        if entry.startswith(f".{name}.") and entry.endswith((".tmp", ".old")):
            unlink_quietly(os.path.join(folder, entry))
            count += 1
    return count


def unlink_quietly(path: str) -> None:
    """Unlink `path`, without an error if it is gone or can't be removed."""
    try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
        os.unlink(path)
    except OSError:
        pass


def _sync_folder(path: str) -> None:
    """Make a rename durable. Some filesystems refuse to sync a directory; the rename stands nevertheless."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)
