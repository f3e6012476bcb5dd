"""File locks that only a living process can hold: flock(2) on files that are never unlinked.

Such a lock has at most one holder on one kernel, and it is free the moment the last copy of its descriptor is closed,
however its holder dies. It guarantees nothing across a kernel boundary (virtiofs, 9p, NFS).
flock, never lockf: a POSIX lock is lost when the process closes *any* descriptor of the file.
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import errno
import fcntl
import os

from ..errors import StateRootError, file_hint
from .shared_files import SharedFolder, Untrusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .clock import Deadline

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN)
_REOPENS = 8  # the file is replaced under us: once is a careless cleaner, eight times is a fight
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1
_MAX_BODY = 4096


def _refused(path: str, exc: OSError, what: str) -> StateRootError:
    place = f"make {os.path.dirname(path) or '.'} a writable directory of yours on a local filesystem"
    hint = file_hint(exc, "name a palace elsewhere (--palace DIR)", otherwise=place)
    return StateRootError(f"{what} {path}: {exc.strerror or exc}.", hint=hint)


class FileLock:
    """One lock file, held or not by this object. Not reentrant; one object, one descriptor.

    Args:
        path: the lock file. Created 0600 when absent, never truncated, never removed, never followed as a
            symlink.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd >= 0

    @property
    def fd(self) -> int:
        """The descriptor that carries the lock, -1 when not held. A child that inherits it shares it."""
        return self._fd

    def try_acquire(self) -> bool:
        """Take the lock if it is free; False if it has a holder (this object included).

        Raises:
            StateRootError: the file can't be opened or locked at all, which says nothing about owners.
        """
        if self.held:
            return False
        for _ in range(_REOPENS):
            fd = self._open()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                os.close(fd)
                if exc.errno in _BUSY:
                    return False
                raise _refused(self.path, exc, "cannot lock") from exc
            if _still_named(fd, self.path):
                self._fd = fd
                return True
            os.close(fd)  # a lock on a file that is no longer the lock file excludes no other process
        raise StateRootError(
            f"{self.path} is replaced again and again while it is being locked.",
            hint="stop the program that removes it; lock files of mempalace-broker must never be removed.",
        )

    def acquire(self, deadline: Deadline) -> bool:
        """Take the lock, waiting for it until `deadline`; False if it did not become free.

        Polls: a blocking flock could not be bounded without signals. Raises as `try_acquire`.
        """
        pause = _FIRST_PAUSE
        while not self.try_acquire():
            left = deadline.remaining()
            if left <= 0:
                return False
            deadline.clock.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
        return True

    def release(self) -> None:
        """Free the lock, even if children have copies of the descriptor."""
        if self.held:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.close_copy()

    def close_copy(self) -> None:
        """Close only our descriptor: the lock lives on in a child that inherited it."""
        if self.held:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def still_named(self) -> bool:
        """Whether the path still names the locked file; if not, another process can lock it, too."""
        return self.held and _still_named(self._fd, self.path)

    def write_body(self, body: bytes) -> None:
        """Replace the file's content, which is for messages and proves nothing. Needs the lock."""
        if not self.held:
            raise RuntimeError(f"{self.path} is written only by its holder")
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, body[:_MAX_BODY], 0)
        except OSError as exc:
            raise _refused(self.path, exc, "cannot write") from exc

    def _open(self) -> int:
        folder, name = os.path.split(self.path)
        try:
            with SharedFolder.open(folder or ".") as opened:
                return opened.open_in_place(name, create=True)
        except Untrusted as exc:
            raise StateRootError(
                f"cannot open {self.path}: {exc.strerror}.",
                hint=f"make room for the lock: remove {self.path}, no broker made it",
            ) from exc
        except OSError as exc:
            raise _refused(self.path, exc, "cannot open") from exc


def _still_named(fd: int, path: str) -> bool:
    """Whether `path` still names the file behind `fd`."""
    mine = os.fstat(fd)
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return False
    return mine.st_nlink > 0 and (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino)


def is_held(path: str) -> bool | None:
    """Whether the lock file `path` has a holder; None if that is not known.

    The probe takes a shared lock for an instant: probes don't disturb each other, but one can make a simultaneous
    `try_acquire` fail. So use `acquire` with a short deadline where the lock must not be lost by accident.
    """
    try:
        fd = _open_read(path)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        return True if exc.errno in _BUSY else None
    finally:
        os.close(fd)
    return False


def wait_until_free(path: str) -> None:
    """Wait, for however long, until the lock file has no holder. An error that says nothing ends the wait.

    For an instant it then holds the lock, shared, as `is_held` does.
    """
    try:
        fd = _open_read(path)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError:
        return
    finally:
        os.close(fd)


def _open_read(path: str) -> int:
    folder, name = os.path.split(path)
    with SharedFolder.open(folder or ".") as opened:
        return opened.open_read(name)


def read_body(path: str) -> bytes:
    """Return what the last holder wrote into the lock file; empty if there is nothing to read."""
    try:
        fd = _open_read(path)
    except OSError:
        return b""
    try:
        return os.read(fd, _MAX_BODY)
    except OSError:
        return b""
    finally:
        os.close(fd)
