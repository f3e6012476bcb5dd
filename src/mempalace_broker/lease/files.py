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
import stat
import time

from ..errors import StateRootError
from ..system.kernel import drop_cached_pages, sync_data
from ..system.shared_files import SharedFolder, Untrusted
from .machine.lease import MAX_EPOCH, LeaseState, Listing, NodeKind, ObservedLease
from .machine.record import SIZE, HolderId, LeaseRecord, decode, encode, proven_dead

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LEASE, _ASK, _GONE = "lease", "ask", "gone"
_DIGITS = 12
_MOST_DIGITS = 20  # of a sequence
_TORN_READS = 5  # of one record before it counts as unreadable
_BETWEEN_READS_S = 0.002
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_NOT_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # they say nothing about the file
_MOST_READ = 256  # leases, of which people are told
MARGIN = 1000  # epochs below the highest one that `mend` frees


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
            palace, name = os.path.split(self.path)
            os.makedirs(palace, 0o700, exist_ok=True)
            with SharedFolder.open(palace) as folder:
                folder.folder(name, make=True).close()
        except OSError as exc:
            raise _refused(self.path, exc) from exc

    # -- looking

    def listing(self) -> Listing:
        """The names. Raises OSError."""
        with SharedFolder.open(self.path) as folder:
            return parse_names(*_kinds(folder))

    def read(self, epoch: int) -> LeaseRecord:
        """One record, past the caches; MISSING where there is no such file, UNREADABLE where it can't be one.

        Raises:
            OSError: the folder can't be read.
        """
        if not 0 < epoch <= MAX_EPOCH:
            return LeaseRecord(epoch, LeaseState.MISSING)
        for attempt in range(_TORN_READS):
            if attempt:
                time.sleep(_BETWEEN_READS_S)  # a write is under way; bounded by the number of reads
            try:
                data = _read_fresh(self.path, _name(epoch))
            except OSError as exc:
                if exc.errno in _NOT_LEFT:
                    raise
                break
            if data is None:
                return LeaseRecord(epoch, LeaseState.MISSING)
            lease = decode(data, epoch)
            if lease.state is not LeaseState.UNREADABLE:
                return lease
        return LeaseRecord(epoch, LeaseState.UNREADABLE)

    def read_all(self) -> tuple[Listing, list[LeaseRecord]]:
        """The names, and the records of the highest epochs, lowest first. Raises OSError."""
        listing = self.listing()
        return listing, [self.read(epoch) for epoch in listing.epochs[-_MOST_READ:]]

    def observe(self, lease: LeaseRecord) -> ObservedLease:
        """The record as an acquirer judges it. Only the holder of broker.lock may ask."""
        dead = lease.state is not LeaseState.MISSING and proven_dead(lease, self.me, local=self._local)
        return ObservedLease(lease.epoch, lease.state, lease.sequence, lease.busy, lease.holder.kind, dead)

    # -- doing

    def create(self, epoch: int) -> bool:
        """Create that epoch's name; False if another broker did. Raises OSError."""
        try:
            with SharedFolder.open(self.path) as folder:
                fd = folder.open_new(_name(epoch))
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
        name = f"ask-{_name(epoch)}-{os.urandom(4).hex()}"
        with SharedFolder.open(self.path) as folder:
            folder.create(name)
        self._requests.append(name)

    def withdraw_requests(self) -> None:
        """Remove our requests for a handover."""
        while self._requests:
            self._remove([self._requests.pop()])

    def remove(self, epoch: int) -> None:
        """Remove a stale epoch below ours, and what was said about it and those before it."""
        names = [_name(epoch)]
        with SharedFolder.open(self.path) as folder:
            for name in folder.names():
                kind, number, _ = _words(name)
                if kind in (_ASK, _GONE) and number <= epoch:
                    names.append(name)
        self._remove(names)

    def _remove(self, names: list[str]) -> None:
        try:
            with SharedFolder.open(self.path) as folder:
                for name in names:
                    folder.remove(name)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise

    def declare_gone(self, epoch: int, sequence: int) -> None:
        """Write down a person's word. Raises OSError."""
        with SharedFolder.open(self.path) as folder:
            try:
                folder.create(f"{_GONE}-{_name(epoch)}-{sequence}")
            except FileExistsError:
                return

    def close(self) -> None:
        """Close our record's file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _name(epoch: int) -> str:
    return f"{epoch:0{_DIGITS}}"


def _words(name: str) -> tuple[str, int, int]:
    """What a name says: (kind, epoch, sequence); kind "" for names that no broker makes."""
    kind, _, rest = name.partition("-")
    number, _, more = rest.partition("-") if kind in (_ASK, _GONE) else (name, "", "")
    if not (name.isascii() and number.isdigit() and len(number) == _DIGITS and 0 < int(number) <= MAX_EPOCH):
        return "", 0, 0
    if kind == _ASK:
        return _ASK, int(number), 0
    if kind == _GONE:
        return (_GONE, int(number), int(more)) if more.isdigit() and len(more) <= _MOST_DIGITS else ("", 0, 0)
    return _LEASE, int(number), 0


def parse_names(names: list[str], not_files: frozenset[str] = frozenset()) -> Listing:
    """What a folder's names say. Hidden ones are the system's or somebody's tool, all others strange.

    Args:
        not_files: those of them that are no regular files, as every lease is one.
    """
    epochs, gone, requested, strange, taken = [], [], [], [], 0
    for name in names:
        kind, epoch, sequence = _words(name)
        if kind == _LEASE and name in not_files:
            strange.append(name)
            taken = max(taken, epoch)
        elif kind == _LEASE:
            epochs.append(epoch)
        elif kind == _ASK:
            requested.append(epoch)
        elif kind == _GONE:
            gone.append((epoch, sequence))
        elif not name.startswith("."):
            strange.append(name)
    return Listing(tuple(sorted(epochs)), frozenset(gone), frozenset(requested), tuple(sorted(strange)), taken)


def mend(path: str) -> list[str]:
    """Remove what no broker can have put at `path` or into it, and what leaves no higher epoch; the names.

    Raises:
        StateRootError: that fails.
    """
    palace, name = os.path.split(path)
    try:
        with SharedFolder.open(palace) as outer:
            found = outer.look(name)
            if found is None:
                return []
            if not stat.S_ISDIR(found.st_mode):
                outer.remove(name)
                return [name]
            with outer.folder(name) as folder:
                listing = parse_names(*_kinds(folder))
                unwanted = [*listing.strange, *_exhausting(path, listing)]
                for entry in unwanted:
                    folder.remove_tree(entry)
                return unwanted
    except OSError as exc:
        raise _refused(path, exc) from exc


def _exhausting(path: str, listing: Listing) -> list[str]:
    """Names of the leases that nobody holds, where there is hardly a higher epoch left."""
    high = [epoch for epoch in listing.epochs if epoch > MAX_EPOCH - MARGIN]
    folder = LeaseFolder(path, HolderId())
    return [_name(epoch) for epoch in high if folder.read(epoch).is_resolved(listing)]


def _kinds(folder: SharedFolder) -> tuple[list[str], frozenset[str]]:
    """All names in a folder, and those that are no regular files. Raises OSError."""
    with os.scandir(folder.fd) as entries:
        found = [(entry.name, entry.is_file(follow_symlinks=False)) for entry in entries]
    return [name for name, _ in found], frozenset(name for name, is_file in found if not is_file)


def read_leases(path: str) -> tuple[Listing, list[LeaseRecord]]:
    """All leases, lowest epoch first; none where there is no folder. Changes nothing.

    Raises:
        StateRootError: it is there and can't be read.
    """
    try:
        return LeaseFolder(path, HolderId()).read_all()
    except OSError as exc:
        if exc.errno in _ABSENT and not os.path.lexists(path):
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


def _read_fresh(path: str, name: str) -> bytes | None:
    """A small file's bytes as they are now, None if there is no such file. Raises OSError."""
    try:
        with SharedFolder.open(path) as folder:
            fd = folder.open_read(name)
    except Untrusted:
        raise
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


def _refused(path: str, exc: OSError) -> StateRootError:
    return StateRootError(
        f"cannot use the folder of leases {path}: {exc.strerror or exc}.",
        hint="make it a directory that you can read and write, on a disk with room; what stands in its place, "
        "`mempalace-broker take-over --yes` removes",
    )
