"""Files in folders that others can write to: the state root, the palace, and whatever lies below them.

A container that has such a folder mounted can put anything there under any name: a link to a file of ours, a FIFO
that never answers, a file that grows while it is read. So every name is opened relative to the descriptor of its
folder, a link is never followed, only a regular file of a trusted owner counts, and every read is bounded.

    with SharedFolder.open(root) as folder:
        data = folder.read("broker.json", 65536)
        folder.replace("broker.json", fresh)

Every refusal is an OSError, as the system reports it, or `Untrusted`, which says why. `mp-shim` imports this module:
keep it lean. So does the engine, in the user's interpreter (Python 3.9): one implementation for all who open such
files, and it needs nothing of ours.
"""

from __future__ import annotations

import errno
import os
import stat

from .file_trust import distrust_file, distrust_names, give_to_owner, trusted_owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
O_PATH = getattr(os, "O_PATH", 0)  # Linux
_CHUNK, _SMALL_CHUNK = 1 << 20, 1 << 16  # bytes; most files are small, and each read allocates as much as it asks for
_DEEPEST = 16  # folders in a tree that is removed; ours have one level


class Untrusted(OSError):
    """A name that is there, but not as a regular file that we may believe or write to."""

    hint = "let it be a regular file of yours, writable by you alone (`ls -ld` shows what it is)"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(errno.EPERM, why, path)


class SharedFolder:
    """An open folder. Names are single names: a path with a slash in it is refused.

    Attributes:
        path: for messages only; what counts is the descriptor. fd: the descriptor, -1 once closed.
    """

    __slots__ = ("_info", "_owners", "fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self._info = os.fstat(fd)
        self._owners = trusted_owners(self._info)

    @classmethod
    def open(cls, path: str) -> SharedFolder:
        """Open a folder by its path; links that lead to it are the caller's to resolve before.

        Raises:
            OSError: as the system reports it.
        """
        return cls(os.open(path, _FOLDER | os.O_NOFOLLOW), path)

    def folder(self, name: str, *, make: bool = False) -> SharedFolder:
        """A folder in this one, made 0700 where it is missing and `make` says so. Raises OSError."""
        path = self._named(name)
        try:
            fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            if not make:
                raise
            try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
                os.mkdir(name, 0o700, dir_fd=self.fd)
            except FileExistsError:
                pass  # somebody else made it just now
            fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.fd)
        if make:
            give_to_owner(fd, self._info)
        return SharedFolder(fd, path)

    def names(self) -> list[str]:
        """The names in this folder. Raises OSError."""
        return os.listdir(self.fd)

    def open_read(self, name: str) -> int:
        """A descriptor for reading a file, the caller's to close.

        Raises:
            OSError: as the system reports it. Untrusted: it is not a regular file of a trusted owner.
        """
        return self._opened(name, os.O_RDONLY)

    def read(self, name: str, limit: int) -> bytes | None:
        """The first `limit` + 1 bytes of a file, so that a longer one can be told; None if there is no such name.

        Raises as `open_read`.
        """
        try:
            fd = self.open_read(name)
        except FileNotFoundError:
            return None
        try:
            return read_at_most(fd, limit + 1)
        finally:
            os.close(fd)

    def open_in_place(self, name: str, *, create: bool = False, append: bool = False) -> int:
        """A descriptor for reading and writing a file as it stands, the caller's to close; made 0600 if `create`.

        Raises as `open_read`; Untrusted also where others can write to it by another name.
        """
        flags = (os.O_CREAT if create else 0) | (os.O_APPEND if append else 0)
        fd = self._opened(name, os.O_RDWR | flags)
        if why := distrust_names(os.fstat(fd)):
            os.close(fd)
            raise Untrusted(self._named(name), why)
        give_to_owner(fd, self._info)
        return fd

    def open_new(self, name: str, mode: int = 0o600) -> int:
        """A descriptor for reading and writing a file that is not there yet, the caller's to close.

        Raises:
            OSError: as the system reports it, FileExistsError where the name is taken by anything.
        """
        self._named(name)
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, mode, dir_fd=self.fd)
        give_to_owner(fd, self._info)
        return fd

    def create(self, name: str, data: bytes = b"", mode: int = 0o600) -> None:
        """Make a file that is not there yet. Raises as `open_new`."""
        fd = self.open_new(name, mode)
        try:
            try:
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:  # whatever happened, interrupts included: half a file under that name misleads
            self.remove(name)
            raise

    def replace(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Put `data` in place of whatever has that name: others see the old file or the new one, never half of it.

        Raises:
            OSError: as the system reports it; the old file stands then.
        """
        self._named(name)
        temp = f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
        self.create(temp, data, mode)
        try:
            try:
                self.rename(temp, name)
            except IsADirectoryError:
                self.clear(name)
                self.rename(temp, name)
        except BaseException:  # as above
            self.remove(temp)
            raise
        self.sync()

    def rename(self, name: str, new: str, *, into: SharedFolder | None = None) -> None:
        """Give what has a name in this folder another one in it or `into`, whatever had that one. Raises OSError."""
        for word in (name, new):
            self._named(word)
        os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=self.fd if into is None else into.fd)

    def remove(self, name: str) -> bool:
        """Unlink a name, a link and not its target; whether it was there. Raises OSError for anything else."""
        self._named(name)
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True

    def clear(self, name: str) -> None:
        """Unlink a name; a folder, which none of us makes there, is moved aside instead. Raises OSError."""
        try:
            self.remove(name)
        except OSError:
            found = self.look(name)
            if found is None or not stat.S_ISDIR(found.st_mode):
                raise
            self.rename(name, f"{name}.moved-{os.urandom(4).hex()}")

    def remove_tree(self, name: str) -> bool:
        """Unlink whatever has that name, a folder with all that is in it; whether it was there. Raises OSError."""
        return self._remove_tree(name, _DEEPEST)

    def _remove_tree(self, name: str, deepest: int) -> bool:
        try:
            inner = self.folder(name)
        except (FileNotFoundError, NotADirectoryError):
            return self.remove(name)
        except OSError as exc:
            if exc.errno not in (errno.ELOOP, errno.EMLINK):
                raise
            return self.remove(name)  # a link
        with inner:
            if not deepest:
                raise OSError(errno.ELOOP, "too many folders in one another", inner.path)
            for entry in inner.names():
                inner._remove_tree(entry, deepest - 1)
        os.rmdir(name, dir_fd=self.fd)
        return True

    def look(self, name: str) -> os.stat_result | None:
        """What has that name, a link and not its target; None where nothing has. Raises OSError."""
        self._named(name)
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def give_away(self, name: str) -> os.stat_result | None:
        """Let what has that name belong to the folder's owner, where it is root's alone; what it is, None if nothing.

        Nothing is opened: that would drop the locks that SQLite has on its files. Linux only. Raises OSError.
        """
        try:
            fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        try:
            give_to_owner(fd, self._info, by=f"/proc/self/fd/{fd}")
            return os.fstat(fd)
        finally:
            os.close(fd)

    def sync(self) -> None:
        """Make names durable. Some filesystems refuse to sync a folder: the names stand all the same."""
        try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
            os.fsync(self.fd)
        except OSError:
            pass

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self, name: str, flags: int) -> int:
        path = self._named(name)
        try:
            fd = os.open(name, flags | _FILE, 0o600, dir_fd=self.fd)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
                raise Untrusted(path, "it is not a regular file; no link is followed here") from exc
            raise
        why = distrust_file(os.fstat(fd), self._owners)
        if why:
            os.close(fd)
            raise Untrusted(path, why)
        return fd

    def _named(self, name: str) -> str:
        """The path of a name, for messages. Raises Untrusted where it leads elsewhere."""
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise Untrusted(f"{self.path}/{name!r}", "it is not the name of a file")
        return os.path.join(self.path, name)


def make_folders(path: str) -> None:
    """Make a folder and whatever is missing above it, 0700, for the owner of the one that is there. Raises OSError."""
    if os.path.isdir(path):
        return
    above, name = os.path.split(path.rstrip("/"))
    make_folders(above)
    with SharedFolder.open(os.path.realpath(above)) as folder:
        folder.folder(name, make=True).close()


def read_at_most(fd: int, count: int) -> bytes:
    """Up to `count` bytes from where a descriptor stands; fewer only at the end of the file. Raises OSError."""
    parts: list[bytes] = []
    chunk = _SMALL_CHUNK
    while count > 0:
        part = os.read(fd, min(count, chunk))
        if not part:
            break
        parts.append(part)
        count -= len(part)
        chunk = _CHUNK if len(part) == chunk else chunk
    return b"".join(parts)


def read_followed(path: str, limit: int) -> bytes:
    """The first `limit` + 1 bytes of a regular file of any owner that the user's own links may lead to.

    Raises:
        OSError: as the system reports it. Untrusted: it is a FIFO, which might never answer, or the like.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Untrusted(path, "it is not a regular file")
        return read_at_most(fd, limit + 1)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def replace_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """As `SharedFolder.replace`, by path; links to the folder are followed. Raises OSError."""
    folder, name = os.path.split(path)
    with SharedFolder.open(os.path.realpath(folder)) as opened:
        opened.replace(name, data, mode)


def unlink_quietly(path: str) -> None:
    """Unlink `path`, without an error if it is gone or can't be removed."""
    try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
        os.unlink(path)
    except OSError:
        pass
