"""A folder of snapshots: their names, their manifests, and how many are kept.

2026-11-27T09-36-01Z/manifest.json      what is in it, with checksums; written last, so that without it nothing counts
2026-11-27T09-36-01Z/palace/...         files, as parts.py names them; unchanged ones are hard links to the one before
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import BrokerError, StateRootError, file_hint
from ...system.file_trust import others_write
from ...system.snapshot_names import FOLDER, NAME, snapshot_names
from ...system.sqlite_files import refuse_views, uri_of
from .copying import digest
from .parts import is_safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.paths import Context

MANIFEST = "manifest.json"
PARTIAL = ".partial-"
_SCHEMA = 1


class BadSnapshot(BrokerError):
    """A snapshot is not what its manifest says, or does not exist."""


class Entry(NamedTuple):
    """A file in a snapshot."""

    size: int
    sha256: str


class Snapshot:
    """One complete snapshot. Raises BadSnapshot where its manifest can't be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        try:
            with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
                self.manifest: dict[str, Any] = json.load(file)
            if self.manifest["schema"] != _SCHEMA:
                raise ValueError(f"schema {self.manifest['schema']} is another version's")
            self.files = {str(name): Entry(*entry) for name, entry in self.manifest["files"].items()}
            if wrong := [name for name in self.files if not is_safe(name)]:
                raise ValueError(f"it names {wrong[0]}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise BadSnapshot(f"{path} is not a snapshot: {exc}.", hint="mempalace-broker backup list") from exc

    def file(self, name: str) -> str:
        """The path of one of its files."""
        return os.path.join(self.path, name)

    @property
    def palace(self) -> str:
        """The path of the palace that it was made of, "" where its manifest names none."""
        named = self.manifest.get("palace")
        return str(named.get("path", "")) if isinstance(named, dict) else ""

    @property
    def bytes(self) -> int:
        """How large all its files are together."""
        return sum(entry.size for entry in self.files.values())

    def check(self) -> None:
        """Compare all files with their checksums, and look into each database.

        Raises:
            BadSnapshot: names what is wrong.
        """
        for name, entry in self.files.items():
            try:
                fits = os.path.getsize(self.file(name)) == entry.size and digest(self.file(name)) == entry.sha256
            except OSError as exc:
                raise BadSnapshot(f"{self.path}: {name} can't be read: {exc.strerror}.") from exc
            if not fits:
                raise BadSnapshot(f"{self.path}: {name} is not what was backed up.", hint="use another snapshot")
            if name.endswith(".sqlite3"):
                self._check_database(name)

    def _check_database(self, name: str) -> None:
        with self.open_database(name) as db:
            said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if said != "ok":
                raise sqlite3.DatabaseError(said)

    @contextlib.contextmanager
    def open_database(self, name: str) -> Iterator[sqlite3.Connection]:
        """Open one of its databases, to read, whatever was written into it as text. Nothing is written beside it.

        Raises:
            BadSnapshot: it can't be read, now or within the block.
        """
        db = sqlite3.connect(uri_of(self.file(name), "immutable=1"), uri=True)
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            refuse_views(db)
            yield db
        except sqlite3.Error as exc:
            raise BadSnapshot(f"{self.path}: {name} is damaged: {exc}.", hint="use another snapshot") from exc
        finally:
            db.close()


def snapshot_folder(context: Context, named: str | None, *, make: bool) -> str:
    """The folder of snapshots: the one that is named, else one in the palace's private folder.

    Args:
        make: make it where it is missing. A command that only reads finds no snapshots there, even on a read-only disk.

    Raises:
        StateRootError: others can write to it, or it can't be made.
    """
    private = context.files.private
    if named is None:
        if why := private.make() if make else private.problem():
            raise StateRootError(f"there is no folder for snapshots: {why}.", hint="name one: --dir")
        named = os.path.join(private.path, FOLDER)
    folder = os.path.realpath(named)
    try:
        if make:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        elif not os.path.lexists(folder):
            return folder
        info = os.stat(folder)
    except OSError as exc:
        hint = file_hint(exc, "name another: --dir")
        raise StateRootError(f"cannot use {folder}: {exc.strerror or exc}.", hint=hint) from exc
    inside = (context.identity.path, context.files.root)
    if any(folder == place or folder.startswith(place.rstrip("/") + "/") for place in inside):
        what = "lies where containers that share the palace can write"
    elif others_write(info) or info.st_uid not in (os.geteuid(), 0):
        what = "can be written by others"
    else:
        return folder
    raise StateRootError(f"snapshots are not kept in {folder}, which {what}.", hint="name another: --dir")


def snapshots_in(folder: str, palace: str = "") -> list[Snapshot]:
    """The complete snapshots, oldest first, of the palace with that path if one is named; what can't be read is left
    out.
    """
    found = []
    for name in snapshot_names(folder):
        with contextlib.suppress(BadSnapshot):
            found.append(Snapshot(os.path.join(folder, name)))
    return [snapshot for snapshot in found if palace in ("", snapshot.palace)]


def find_snapshot(context: Context, folder: str, name: str | None) -> Snapshot:
    """The snapshot of that name, else the newest of this palace. Raises BadSnapshot where there is none."""
    if name is None:
        palace = context.identity.path
        if not (found := snapshots_in(folder, palace)):
            hint = "name one of another palace, or run `mempalace-broker backup create`"
            raise BadSnapshot(f"there is no snapshot of {palace} in {folder}.", hint=hint)
        return found[-1]
    if not NAME.fullmatch(name):
        raise BadSnapshot(f"{name} is not the name of a snapshot.", hint="mempalace-broker backup list")
    path = os.path.join(folder, name)
    if not os.path.lexists(path):
        raise BadSnapshot(f"there is no snapshot {name} in {folder}.", hint="mempalace-broker backup list")
    return Snapshot(path)


def write_manifest(path: str, facts: dict[str, Any], files: dict[str, Entry]) -> None:
    """Complete a snapshot. Raises OSError."""
    with open(os.path.join(path, MANIFEST), "x", encoding="utf-8") as file:
        json.dump({"schema": _SCHEMA, **facts, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def folder_lock(folder: str, operation: int) -> Iterator[bool]:
    """Hold a flock of the folder itself: LOCK_SH while something in it has a name with PARTIAL; whether it was had.

    A filesystem may have no such locks.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, operation)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def prune(folder: str, palace: str, keep: int, *, scheduled: bool = False) -> list[str]:
    """Remove all but the newest `keep` snapshots of a palace, and leftovers of interrupted ones; return the names.

    Args:
        scheduled: count and remove only scheduled snapshots; whatever a person made stays.

    Leftovers stay while another snapshot is made or tried, because nothing tells the two apart.
    """
    found = [one for one in snapshots_in(folder, palace) if not scheduled or one.manifest.get("scheduled") is True]
    doomed = [snapshot.name for snapshot in found[:-keep]]
    with folder_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
        left = [name for name in os.listdir(folder) if name.startswith(PARTIAL)] if alone else []
        for name in [*doomed, *left]:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    return doomed
