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
from ..system.shared_files import SharedFolder, Untrusted, make_folders
from .machine.lease import MAX_EPOCH, LeaseState, Listing, NodeKind, ObservedLease
from .machine.record import SIZE, HolderId, LeaseRecord, decode, encode, proven_dead
from .names import ASK, GONE, LEASE, gone_name, lease_name, parse_names, words

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TORN_READS = 5  # of one record before it counts as unreadable
_BETWEEN_READS_S = 0.002
_SETTLED_NS = 3_000_000_000  # some filesystems count in steps of two seconds
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_PHANTOM = errno.EINVAL  # of opening a name that the host removed and this kernel still caches (Docker Desktop)
_NOT_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # they say nothing about the file
_MOST_READ = 256  # leases, of which people are told
MOST = 1024  # leases that count, the highest ones; brokers remove what is stale, so that they leave a few
MARGIN = 1000  # epochs below the highest one that `mend` frees; brokers never skip so many
_CANDIDATES = (LeaseState.EMPTY, LeaseState.ACQUIRING)  # what a record says before its broker owns


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
        self._inode = 0
        self._listed = Listing()
        self._unchanged: tuple[int, int, int] | None = None  # the folder's state as long as `_listed` holds
        self._requests: list[str] = []

    def prepare(self) -> None:
        """Make the folder where it is missing, 0700.

        Raises:
            StateRootError: it can't be made.
        """
        try:
            palace, name = os.path.split(self.path)
            make_folders(palace)
            with SharedFolder.open(palace) as folder:
                folder.folder(name, make=True).close()
        except OSError as exc:
            raise _refused(self.path, exc) from exc

    # -- looking

    def listing(self) -> Listing:
        """The names. On the host, another file under our name is not our lease. Raises OSError.

        A folder on a disk of this machine is not read again while its ctime stands, which every change of a name in it
        moves and nobody can set back. One that changed a moment ago is: the kernel's clock for files ticks slowly.
        """
        if self._unchanged is not None and _state(os.stat(self.path, follow_symlinks=False)) == self._unchanged:
            return self._listed
        with SharedFolder.open(self.path) as folder:
            now, info = time.time_ns(), os.fstat(folder.fd)
            listing, inodes = _look(folder)
        own = tuple(epoch for epoch in listing.epochs[:-MOST] if epoch == self._epoch)
        listing = listing._replace(epochs=own + listing.epochs[-MOST:])
        if self._inode and inodes.get(lease_name(self._epoch), self._inode) != self._inode:
            listing = listing._replace(epochs=tuple(epoch for epoch in listing.epochs if epoch != self._epoch))
        self._unchanged = _state(info) if self._local and info.st_ctime_ns + _SETTLED_NS < now else None
        self._listed = listing
        return listing

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
                data = read_fresh(self.path, lease_name(epoch))
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
                fd = folder.open_new(lease_name(epoch))
                inode = _look(folder)[1].get(lease_name(epoch), 0) if self.me.kind is NodeKind.HOST else 0
        except FileExistsError:
            return False
        self.close()
        self._fd, self._epoch, self._inode = fd, epoch, inode
        return True

    def create_again(self, epoch: int) -> bool:
        """Put back our name, which somebody removed or replaced; False if another broker may have it now.

        Raises:
            OSError: it can't be made.
        """
        palace, name = os.path.split(self.path)
        with SharedFolder.open(palace) as outer:
            found = outer.look(name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                outer.remove(name)
            with outer.folder(name, make=True) as folder:
                if self.read(epoch).state in _CANDIDATES:
                    return False
                folder.remove_tree(lease_name(epoch))
        return self.create(epoch)

    def made_up(self, listing: Listing) -> frozenset[int]:
        """Higher epochs than ours that no candidate can have made: owners of what we own, torn, or far away."""
        above = [epoch for epoch in listing.epochs if epoch > self._epoch][-_MOST_READ:]
        return frozenset(
            epoch for epoch in above if epoch > self._epoch + MARGIN or not _may_be_candidate(self.read(epoch))
        )

    def weed(self, epochs: frozenset[int], listing: Listing) -> None:
        """Remove these epochs, and what is said about ours. Raises OSError."""
        said = [gone_name(epoch, sequence) for epoch, sequence in listing.gone if epoch == self._epoch]
        self._remove([lease_name(epoch) for epoch in sorted(epochs)] + sorted(said)[:_MOST_READ])

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
        name = f"ask-{lease_name(epoch)}-{os.urandom(4).hex()}"
        with SharedFolder.open(self.path) as folder:
            folder.create(name)
        self._requests.append(name)

    def answer(self, epoch: int) -> None:
        """The same as a host's answer to a lease above its own: once, and to the highest alone. Raises OSError."""
        if not any(words(name)[1] >= epoch for name in self._requests):
            self.withdraw_requests()
            self.request_handover(epoch)

    def withdraw_requests(self) -> None:
        """Remove our requests for a handover."""
        while self._requests:
            self._remove([self._requests.pop()])

    def remove(self, epochs: tuple[int, ...]) -> None:
        """Remove stale epochs below ours, what was said about them and those before them, and names beyond MOST."""
        highest = max(epochs, default=0)
        with SharedFolder.open(self.path) as folder:
            found = [(name, *words(name)) for name in folder.names()]
        said = [name for name, kind, epoch, _ in found if kind in (ASK, GONE) and epoch <= highest]
        leases = sorted(epoch for _, kind, epoch, _ in found if kind == LEASE)
        beyond = [epoch for epoch in leases[:-MOST] if epoch < self._epoch]
        self._remove([*map(lease_name, {*epochs, *beyond}), *said])

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
                folder.create(gone_name(epoch, sequence))
            except FileExistsError:
                return

    def close(self) -> None:
        """Close our record's file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _may_be_candidate(lease: LeaseRecord) -> bool:
    return not lease.busy and (lease.state in _CANDIDATES or lease.state.is_final)


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
                listing, _ = _look(folder)
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
    return [lease_name(epoch) for epoch in high if folder.read(epoch).is_resolved(listing)]


def _state(folder: os.stat_result) -> tuple[int, int, int]:
    return folder.st_dev, folder.st_ino, folder.st_ctime_ns


def _look(folder: SharedFolder) -> tuple[Listing, dict[str, int]]:
    """What the names in a folder say, and their inodes as the folder has them. Raises OSError."""
    with os.scandir(folder.fd) as entries:
        found = {entry.name: (entry.inode(), entry.is_file(follow_symlinks=False)) for entry in entries}
    not_files = frozenset(name for name, (_, is_file) in found.items() if not is_file)
    return parse_names(list(found), not_files), {name: inode for name, (inode, _) in found.items()}


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


def read_fresh(path: str, name: str) -> bytes | None:
    """A small file's bytes as they are now, None if there is no such file. Raises OSError."""
    try:
        with SharedFolder.open(path) as folder:
            fd = folder.open_read(name)
    except Untrusted:
        raise
    except OSError as exc:
        if exc.errno in _ABSENT or (exc.errno == _PHANTOM and name not in os.listdir(path)):
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
