"""Makes a snapshot of a palace that is in use.

1  large files are copied as they are, while everybody goes on
2  pause: no call is in the engine; the copies are brought up to date, small files are copied, and databases with a
   write-ahead log are held at this very moment by a transaction that reads
3  everybody goes on; those databases are copied, all is summed up, tried out, and gets its name
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ... import __version__
from ...errors import StateRootError, file_hint
from ...system.clock import Deadline
from ...system.find_palace import holds_store
from ...system.palace_stores import check_stores
from ...system.shared_files import Untrusted
from ...system.snapshot_names import name_at
from ...system.sqlite_files import uri_of
from ..cleanup import removed_at_the_end
from ..exclusive.borrow import PAUSE_S, Borrower
from ..steps import Steps
from .copying import Twin, check_room, copy_file, digest, folder_of, sync
from .parts import Kind, Part, parts_of
from .snapshots import PARTIAL, BadSnapshot, Entry, Snapshot, folder_lock, snapshots_in, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...system.paths import Context

_BUSY_S = 2.0  # how long SQLite waits for a writer that is not a session
_SETTLED_NS = 1_000_000_000  # a file that changed a moment ago may change again under the same time
_TRUNCATED = ".pickle"  # Chroma truncates it when it stores an index: a mapping of it would end this process
_COMMAND = ("mempalace-broker", "backup")


class Made(NamedTuple):
    """A snapshot that was made. pause_s: how long writes waited."""

    snapshot: Snapshot
    pause_s: float


class _Copies:
    """The files of one snapshot on their way into `folder`."""

    def __init__(self, context: Context, folder: str, steps: Steps) -> None:
        self._context = context
        self._folder = folder
        self._steps = steps
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._held: list[tuple[Part, sqlite3.Connection]] = []
        self._twins: dict[str, Twin] = {}
        self.parts: list[Part] = []

    def copy_ahead(self) -> None:
        """Copy the large files, although they may be written to meanwhile."""
        large = [part for part in parts_of(self._context) if part.kind in (Kind.DATABASE, Kind.BULK)]
        self._steps.begin("copying", sum(os.path.getsize(part.path) for part in large))
        for part in large:
            self._seen[part.name] = _stamp(part.path)
            cloned = copy_file(part.path, self._target(part), self._steps.advance, part.root)
            if not cloned and not part.path.endswith(_TRUNCATED):
                self._twins[part.name] = Twin(part.path, self._target(part), part.root)
        for twin in self._twins.values():
            twin.catch_up()  # once without a pause: both files are in memory from here on

    def catch_up(self) -> None:
        """Complete the copies, while nobody writes."""
        self.parts = parts_of(self._context)
        for part in self.parts:
            if part.kind is Kind.WAL_DATABASE:
                self._held.append((part, _hold(part)))
            elif part.kind is Kind.DATABASE:
                with contextlib.closing(_hold(part)):
                    self._renew(part)
            elif part.kind is Kind.FILE or self._seen.get(part.name) != _stamp(part.path):
                self._renew(part)

    def _renew(self, part: Part) -> None:
        twin = self._twins.get(part.name)
        if twin is None:  # it was cloned, is small, or new
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._target(part))
            copy_file(part.path, self._target(part), self._steps.advance, part.root)
        elif twin.is_of(part.path):
            twin.catch_up()
        else:
            raise BadSnapshot(f"{part.path} was replaced while it was copied.", hint="try again")

    def finish(self) -> None:
        """Copy the databases that are held, and drop what has vanished since it was copied ahead."""
        for part, held in self._held:
            check_room(self._folder, os.path.getsize(part.path))
            with contextlib.closing(sqlite3.connect(self._target(part))) as copy:
                held.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, without side files
            held.close()
        for name in self._seen.keys() - {part.name for part in self.parts}:
            os.unlink(os.path.join(self._folder, name))

    def close(self) -> None:
        """Close all files."""
        for twin in self._twins.values():
            twin.close()
        for _, held in self._held:
            held.close()

    def _target(self, part: Part) -> str:
        path = os.path.join(self._folder, part.name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return path


def create(
    context: Context,
    folder: str,
    *,
    wait_s: float,
    try_out: Callable[[Snapshot], None],
    steps: Steps | None = None,
    scheduled: bool = False,
) -> Made:
    """Make a snapshot in `folder`.

    Args:
        try_out: raises if the snapshot does not work. steps: show the progress.
        scheduled: the schedule asked for it, not a person.

    Raises:
        BadSnapshot: there is no palace, or the snapshot does not work. PalaceHeld, BrokerUnavailable: no pause was had.
        StateRootError: files of the palace can't be trusted, or the folder can't be written.
    """
    check_stores(context.identity.path, context.identity.graph)
    started = context.clock.wall()
    steps = steps or Steps()
    try:
        with folder_lock(folder, fcntl.LOCK_SH), _new_partial(folder, started) as partial:
            pause_s, copies = _copy(context, partial, wait_s, steps)
            steps.begin("checking")
            files = {part.name: _sum_up(os.path.join(partial, part.name)) for part in copies.parts}
            _share(partial, files, snapshots_in(folder, context.identity.path))
            facts: dict[str, Any] = {
                "created": round(started, 3),
                "palace": context.identity.as_json(),
                "broker": __version__,
                "pause_s": round(pause_s, 3),
                "scheduled": scheduled,
            }
            write_manifest(partial, facts, files)
            snapshot = Snapshot(partial)
            snapshot.check()
            try_out(snapshot)
            for place, _, _ in os.walk(partial):
                sync(place)
            made = os.path.join(folder, os.path.basename(partial).removeprefix(PARTIAL))
            os.rename(partial, made)
            sync(folder)
    except (OSError, sqlite3.Error) as exc:
        raise StateRootError(f"no snapshot was made: {exc}.", hint=_hint(exc, folder)) from exc
    return Made(Snapshot(made), pause_s)


def _hint(exc: OSError | sqlite3.Error, folder: str) -> str:
    if isinstance(exc, OSError):
        there = exc.errno in (errno.ENOSPC, errno.EDQUOT) or str(exc.filename).startswith(f"{folder}/")
        return file_hint(exc, "name another folder: --dir" if there else "")
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    return "try again" if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else "mempalace-broker doctor"


def _copy(context: Context, partial: str, wait_s: float, steps: Steps) -> tuple[float, _Copies]:
    copies = _Copies(context, partial, steps)
    try:
        copies.copy_ahead()
        if not holds_store(context.identity.path):
            raise BadSnapshot(f"{context.identity.path} holds no palace yet.", hint="store something first")
        steps.begin("waiting until no call runs")
        with Borrower(context, _COMMAND, wait_s).pause(Deadline.after(context.clock, wait_s)) as began:
            copies.catch_up()
            pause_s = context.clock.monotonic() - began
        if pause_s > PAUSE_S:
            what = f"the palace could not be copied within the {PAUSE_S:g} s for which writes wait"
            raise BadSnapshot(f"{what}, but in {pause_s:.1f} s.", hint="try again when the disk is less busy")
        copies.finish()
    finally:
        copies.close()
    return pause_s, copies


def _hold(part: Part) -> sqlite3.Connection:
    """A transaction that reads: for it, the database stays as it is. Where that is by a lock, closing any descriptor of
    the file drops it.

    Raises:
        Untrusted: SQLite, which follows links, has opened something else than the file that is there without one.
        BadSnapshot: SQLite can't read it.
    """
    before = _open_files()
    db = sqlite3.connect(uri_of(part.path, "mode=ro"), uri=True, timeout=_BUSY_S)
    try:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        with folder_of(part.path, part.root) as (folder, name):
            found = folder.look(name)
        opened = {file[1:] for file in _open_files() - before}
        if found is None or (found.st_dev, found.st_ino) not in opened:
            raise Untrusted(part.path, "it was replaced by a link")
    except BaseException as exc:
        db.close()
        if isinstance(exc, sqlite3.Error):
            raise BadSnapshot(f"{part.path} can't be read: {exc}.", hint="look at that file, or try again") from exc
        raise
    return db


def _open_files() -> set[tuple[int, int, int]]:
    """Descriptor, device and inode of whatever this process has open."""
    found = set()
    for fd in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # of the listing itself
            info = os.fstat(fd)
            found.add((fd, info.st_dev, info.st_ino))
    return found


def _stamp(path: str) -> tuple[int, int, int]:
    """What changes with a file; for one that changed a moment ago, also a number that never comes again."""
    info = os.stat(path)
    now = time.time_ns()
    return info.st_mtime_ns, info.st_size, 0 if info.st_mtime_ns + _SETTLED_NS < now else now


def _sum_up(path: str) -> Entry:
    sync(path)
    return Entry(os.path.getsize(path), digest(path))


def _share(partial: str, files: dict[str, Entry], earlier: list[Snapshot]) -> None:
    """Replace what the last snapshot has as well by hard links to it."""
    for name in files if earlier else ():
        if earlier[-1].files.get(name) == files[name]:
            target, there = os.path.join(partial, name), earlier[-1].file(name)
            with contextlib.suppress(OSError):  # it is gone, or this filesystem can't: then it stays a copy
                if digest(there) == files[name].sha256:  # else it was damaged since
                    os.link(there, target + ".link")
                    os.replace(target + ".link", target)


@contextlib.contextmanager
def _new_partial(folder: str, at: float) -> Iterator[str]:
    """Make a folder for a snapshot of that time, no other one's; remove it in the end, unless it was renamed."""
    free = (name for name in _names(name_at(at)) if not os.path.lexists(os.path.join(folder, name)))
    partial = next(path for name in free if _make(path := os.path.join(folder, PARTIAL + name)))
    with removed_at_the_end(partial):
        yield partial


def _make(path: str) -> bool:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    return True


def _names(first: str) -> Iterator[str]:
    yield first
    number = 2
    while True:
        yield f"{first}-{number}"
        number += 1
