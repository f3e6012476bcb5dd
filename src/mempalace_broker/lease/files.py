"""The folder of leases: names created once, records written in place and read past every cache.

    000000000007            epoch 7: one record (lease/machine/record.py)
    ask-000000000007-9f2c   the host asks the holder of epoch 7 to hand over
    gone-000000000007-41    a person says that the holder of epoch 7 is gone; void once its sequence is not 41

Measured across kernels: O_EXCL has one winner on every share; a new name is visible at once; a record written in place
by one pwrite is visible at once to a reader that opens the file, drops its cached pages and reads. A record that was
renamed into place may never become visible.
"""

from __future__ import annotations

import errno
import os
import time

from ..errors import StateRootError
from ..system.kernel import drop_cached_pages, sync_data
from .machine.lease import LeaseState, Listing, NodeKind, ObservedLease
from .machine.record import SIZE, HolderId, LeaseRecord, decode, encode, proven_dead

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DIGITS = 12
_TORN_READS = 5  # of one record before it counts as unreadable
_BETWEEN_READS_S = 0.002
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class LeaseFolder:
    """The leases of one palace as one broker sees and makes them.

    Args:
        path: the folder. me: who we are. local: whether it is known to be on a disk of this very machine.
    """

    def __init__(self, path: str, me: HolderId, *, local: bool = False) -> None:
        self.path = path
        self._local = local
        self.me = me
        self._body = me.encode()
        self._fd = -1
        self._epoch = 0
        self._requests: list[str] = []

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

    def read(self, epoch: int) -> LeaseRecord:
        """One record, past the caches; state MISSING where there is no such file. Raises OSError."""
        for attempt in range(_TORN_READS):
            if attempt:
                time.sleep(_BETWEEN_READS_S)  # a write is under way; bounded by the number of reads
            data = _read_fresh(self._name(epoch))
            if data is None:
                return LeaseRecord(epoch, LeaseState.MISSING)
            lease = decode(data, epoch)
            if lease.state is not LeaseState.UNREADABLE:
                return lease
        return LeaseRecord(epoch, LeaseState.UNREADABLE)

    def read_all(self) -> tuple[Listing, list[LeaseRecord]]:
        """The names, and all records, lowest epoch first. Raises OSError."""
        listing = self.listing()
        return listing, [self.read(epoch) for epoch in listing.epochs]

    def observe(self, lease: LeaseRecord) -> ObservedLease:
        """The record as an acquirer judges it. Only the holder of broker.lock may ask."""
        dead = lease.state is not LeaseState.MISSING and proven_dead(lease, self.me, local=self._local)
        return ObservedLease(lease.epoch, lease.state, lease.sequence, lease.busy, lease.holder.kind, dead)

    # -- doing

    def create(self, epoch: int) -> bool:
        """Create that epoch's name; False if another broker did. Raises OSError."""
        try:
            fd = os.open(self._name(epoch), _CREATE, 0o600)
        except FileExistsError:
            return False
        self.close()
        self._fd, self._epoch = fd, epoch
        return True

    def write(self, state: LeaseState, sequence: int, *, busy: bool) -> None:
        """Write our record, one pwrite in place. On a foreign kernel it has reached the host when this returns.

        Raises:
            OSError: it could not be written.
        """
        data = encode(self._epoch, state, sequence, busy=busy, holder=self._body)
        if os.pwrite(self._fd, data, 0) != SIZE:
            raise OSError(errno.EIO, "only a part of the lease was written")
        if self.me.kind is not NodeKind.HOST or sequence == 1:
            sync_data(self._fd)

    def request_handover(self, epoch: int) -> None:
        """Ask the holder of that epoch to hand over. Raises OSError."""
        name = os.path.join(self.path, f"ask-{epoch:0{_DIGITS}}-{os.urandom(4).hex()}")
        os.close(os.open(name, _CREATE, 0o600))
        self._requests.append(name)

    def withdraw_requests(self) -> None:
        """Remove our requests for a handover."""
        while self._requests:
            _unlink(self._requests.pop())

    def remove(self, epoch: int) -> None:
        """Remove a stale epoch below ours, and what was said about it and those before it."""
        _unlink(self._name(epoch))
        for name in os.listdir(self.path):
            kind, _, rest = name.partition("-")
            number = rest.partition("-")[0]
            if kind in ("ask", "gone") and number.isdigit() and int(number) <= epoch:
                _unlink(os.path.join(self.path, name))

    def declare_gone(self, epoch: int, sequence: int) -> None:
        """Write down a person's word. Raises OSError."""
        name = os.path.join(self.path, f"gone-{epoch:0{_DIGITS}}-{sequence}")
        try:
            os.close(os.open(name, _CREATE, 0o600))
        except FileExistsError:
            return

    def close(self) -> None:
        """Close our record's file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _name(self, epoch: int) -> str:
        return os.path.join(self.path, f"{epoch:0{_DIGITS}}")


def parse_names(names: list[str]) -> Listing:
    """What a folder's names say; others are ignored."""
    epochs, gone, requested = [], [], []
    for name in names:
        if name.isdigit() and len(name) == _DIGITS:
            epochs.append(int(name))
            continue
        kind, _, rest = name.partition("-")
        number, _, more = rest.partition("-")
        if kind == "ask" and number.isdigit():
            requested.append(int(number))
        elif kind == "gone" and number.isdigit() and more.isdigit():
            gone.append((int(number), int(more)))
    return Listing(tuple(sorted(epochs)), frozenset(gone), frozenset(requested))


def read_leases(path: str) -> tuple[Listing, list[LeaseRecord]]:
    """All leases, lowest epoch first; none where there is no folder. Changes nothing.

    Raises:
        StateRootError: it is there and can't be read.
    """
    try:
        return LeaseFolder(path, HolderId()).read_all()
    except OSError as exc:
        if exc.errno in _ABSENT:
            return Listing(), []
        raise _refused(path, exc) from exc


def flush_palace(folder: str, graph: str) -> None:
    """Write out what this kernel still caches of a palace's files, to the machine that has them.

    SQLite maps its shared memory, and mapped pages stay here until something flushes them. Not for the engine's
    process: a descriptor that is closed there drops SQLite's locks.

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
    """A lock file (descriptor or path) as its kernel names it, for `HolderId.lock`; "" where there is none."""
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
        drop_cached_pages(fd)
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
        f"cannot use the folder of leases {path}: {exc.strerror or exc}.",
        hint="make it a directory that you can read and write, on a disk with room",
    )
