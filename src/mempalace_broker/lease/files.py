"""The folder of claims: names created once, records written in place and read past every cache.

    000000000007            generation 7: one record (lease/machine/record.py)
    ask-000000000007-9f2c   the host asks the owner of generation 7 to hand over
    gone-000000000007-41    a person says that the writer of generation 7 is gone; void once its sequence is not 41

Measured across kernels: O_EXCL has one winner on every share; a new name is seen at once; a record written in place by
one pwrite is seen at once by a reader who opens the file, drops its cached pages and reads. A renamed one may never be.
"""

from __future__ import annotations

import errno
import os
import time

from ..errors import StateRootError
from .machine.lease import HOST, MISSING, UNREADABLE, Listing, Seen
from .machine.record import SIZE, Claim, Writer, decode, encode, proven_dead

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIGITS = 12
_LOOKS = 5  # at a torn record
_BETWEEN_S = 0.002
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class LeaseFolder:
    """The claims of one palace as one broker sees and makes them.

    Args:
        path: the folder. me: who we are. local: whether it is known to be on a disk of this very machine.
    """

    def __init__(self, path: str, me: Writer, *, local: bool = False) -> None:
        self.path = path
        self._local = local
        self.me = me
        self._body = me.encode()
        self._fd = -1
        self._mine = 0
        self._asked: list[str] = []

    def prepare(self) -> None:
        """Make the folder where it is missing, 0700.

        Raises:
            StateRootError: it can't be made.
        """
        try:
            os.makedirs(self.path, 0o700, exist_ok=True)
        except OSError as exc:
            raise _refused(self.path, exc) from exc

    # -- looking

    def listing(self) -> Listing:
        """The names. Raises OSError."""
        return parse_names(os.listdir(self.path))

    def read(self, generation: int) -> Claim:
        """One record, past the caches; state MISSING where there is no such file. Raises OSError."""
        claim = Claim(generation, UNREADABLE)
        for look in range(_LOOKS):
            data = _read_fresh(self._name(generation))
            if data is None:
                return Claim(generation, MISSING)
            claim = decode(data, generation)
            if claim.state != UNREADABLE:
                break
            if look + 1 < _LOOKS:
                time.sleep(_BETWEEN_S)  # a write is under way; bounded by the number of looks
        return claim

    def seen(self, claim: Claim) -> Seen:
        """The record as a claimant judges it. Only for one who holds broker.lock."""
        dead = claim.state != MISSING and proven_dead(claim, self.me, local=self._local)
        return Seen(claim.generation, claim.state, claim.sequence, claim.busy, claim.writer.kind, dead)

    # -- doing

    def create(self, generation: int) -> bool:
        """Create that generation's name; False if somebody else did. Raises OSError."""
        try:
            fd = os.open(self._name(generation), _CREATE, 0o600)
        except FileExistsError:
            return False
        self.close()
        self._fd, self._mine = fd, generation
        return True

    def write(self, state: str, sequence: int, *, busy: bool) -> None:
        """Write our record, one pwrite in place. On a foreign kernel it is with the host when this returns.

        Raises:
            OSError: it could not be written.
        """
        data = encode(self._mine, state, sequence, busy=busy, writer=self._body)
        if os.pwrite(self._fd, data, 0) != SIZE:
            raise OSError(errno.EIO, "a claim was written by half")
        if self.me.kind != HOST or sequence == 1:
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def ask(self, generation: int) -> None:
        """Ask its owner to hand over. Raises OSError."""
        name = os.path.join(self.path, f"ask-{generation:0{_DIGITS}}-{os.urandom(4).hex()}")
        os.close(os.open(name, _CREATE, 0o600))
        self._asked.append(name)

    def take_back_asks(self) -> None:
        """Remove what we asked."""
        while self._asked:
            _unlink(self._asked.pop())

    def remove(self, generation: int) -> None:
        """Remove a resolved generation below ours, and what was said about it and those before it."""
        _unlink(self._name(generation))
        for name in os.listdir(self.path):
            kind, _, rest = name.partition("-")
            number = rest.partition("-")[0]
            if kind in ("ask", "gone") and number.isdigit() and int(number) <= generation:
                _unlink(os.path.join(self.path, name))

    def declare_gone(self, generation: int, sequence: int) -> None:
        """Write down a person's word. Raises OSError."""
        name = os.path.join(self.path, f"gone-{generation:0{_DIGITS}}-{sequence}")
        try:
            os.close(os.open(name, _CREATE, 0o600))
        except FileExistsError:
            return

    def close(self) -> None:
        """Close our record's file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _name(self, generation: int) -> str:
        return os.path.join(self.path, f"{generation:0{_DIGITS}}")


def parse_names(names: list[str]) -> Listing:
    """What a folder's names say; others are passed over."""
    generations, gone, asks = [], [], []
    for name in names:
        if name.isdigit() and len(name) == _DIGITS:
            generations.append(int(name))
            continue
        kind, _, rest = name.partition("-")
        number, _, more = rest.partition("-")
        if kind == "ask" and number.isdigit():
            asks.append(int(number))
        elif kind == "gone" and number.isdigit() and more.isdigit():
            gone.append((int(number), int(more)))
    return Listing(tuple(sorted(generations)), frozenset(gone), frozenset(asks))


def survey(path: str) -> tuple[Listing, list[Claim]]:
    """All claims, lowest generation first; nothing where there is no folder. For those who only look.

    Raises:
        StateRootError: it is there and can't be read.
    """
    folder = LeaseFolder(path, Writer())
    try:
        listing = folder.listing()
        return listing, [folder.read(generation) for generation in listing.generations]
    except OSError as exc:
        if exc.errno in _ABSENT:
            return Listing(), []
        raise _refused(path, exc) from exc


def flush_store(folder: str, graph: str) -> None:
    """Bring what this kernel still keeps of a palace's files to the machine that has them: SQLite's shared memory is
    mapped, and a mapped page stays here until somebody asks. Not for the engine's process: a descriptor that is closed
    there takes SQLite's locks along.

    Raises:
        OSError: something could not be written.
    """
    names = [entry.path for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            names += [inner.path for inner in os.scandir(entry.path) if inner.is_file(follow_symlinks=False)]
    names += [graph, f"{graph}-wal", f"{graph}-shm"]
    for name in names:
        try:
            fd = os.open(name, _READ)
        except OSError as exc:
            if exc.errno in _ABSENT:
                continue
            raise
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def lock_id(lock: int | str) -> str:
    """A lock file (descriptor or path) as its kernel names it, for `Writer.lock`; "" where there is none."""
    try:
        found = os.stat(lock)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def _read_fresh(path: str) -> bytes | None:
    """A small file's bytes as they are now, None if there is no such file. Raises OSError."""
    try:
        fd = os.open(path, _READ)
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        raise
    try:
        if hasattr(os, "posix_fadvise"):  # macOS has none; there we are the host, and see our own disk
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, SIZE + 1, 0)
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        raise
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        if exc.errno not in _ABSENT:
            raise


def _refused(path: str, exc: OSError) -> StateRootError:
    return StateRootError(
        f"cannot use the folder of claims {path}: {exc.strerror or exc}.",
        hint="make it a directory that you can read and write, on a disk with room.",
    )
