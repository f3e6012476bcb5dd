"""Puts a snapshot in the palace's place, and what was there beside it.

The new files are copied while the agents go on, to a folder of their own (cli/staging.py). Then the palace is lent to
us, the renames are decided on and carried out (system/pending_restore.py), and the engine opens what is there.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from typing import TYPE_CHECKING

from ...errors import StateRootError, file_hint
from ...system.clock import Deadline
from ...system.paths import is_brokers
from ...system.pending_restore import Move, finish_restore, write_moves
from ...system.shared_files import SharedFolder
from ..exclusive.borrow import Borrower
from ..staging import staging_folder
from ..steps import Steps
from .copying import copy_file, folder_of
from .parts import SIDE_FILES, live_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...system.paths import Context
    from .snapshots import Snapshot

_COMMAND = ("mempalace-broker", "restore")
_STAGING = "restore-"
_OUTSIDE = "broker-outside"  # in the private folder: files that belong elsewhere than in the palace


def restore(context: Context, snapshot: Snapshot, *, wait_s: float, steps: Steps | None = None) -> str:
    """Restore a snapshot that was checked; return the folder with the palace's former files.

    Raises:
        PalaceHeld, BrokerUnavailable: the palace can't be had. StateRootError: files can't be placed.
    """
    mark = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(context.clock.wall()))}-{os.urandom(3).hex()}"
    palace = context.identity.path
    places = {os.path.dirname(live) for name in snapshot.files if (live := live_path(context, name))}
    outside = {place for place in places if not f"{place}/".startswith(f"{palace}/")}
    try:
        with staging_folder(context, _STAGING, mark, outside) as staging:
            return _restore(context, snapshot, staging, f"{palace}.before-{mark}", wait_s, steps or Steps())
    except OSError as exc:
        raise StateRootError(f"{snapshot.path} is not restored: {exc}.", hint=file_hint(exc)) from exc


def _restore(context: Context, snapshot: Snapshot, staging: str, aside: str, wait_s: float, steps: Steps) -> str:
    staged: dict[str, str] = {}  # where it belongs -> where it lies ready
    try:
        steps.begin("copying", snapshot.bytes)
        _stage(context, snapshot, staging, staged, steps.advance)
        steps.begin("waiting until no call runs")
        with Borrower(context, _COMMAND, wait_s).borrow(Deadline.after(context.clock, wait_s)):
            moves = _moves(context, staged, staging, aside)
            write_moves(context.files.restore, moves, [staging, os.path.join(context.files.root, "broker-index")])
            finish_restore(context.files.restore)
    finally:
        if not os.path.lexists(context.files.restore.path):  # else they are what the list of renames needs
            shutil.rmtree(staging, ignore_errors=True)
            for path in staged.values():
                if not path.startswith(f"{staging}/") and os.path.lexists(path):
                    os.unlink(path)
    return aside


def _stage(
    context: Context, snapshot: Snapshot, staging: str, staged: dict[str, str], advance: Callable[[int], None]
) -> None:
    """Copy each file to a name on the filesystem where it belongs; beside the palace others can write."""
    palace = context.identity.path + "/"
    beside = os.path.dirname(staging) == os.path.dirname(context.identity.path)
    mark = staging.rpartition(".")[2]
    for name in snapshot.files:
        live = live_path(context, name)
        if not live:
            continue
        inside = live.startswith(palace)
        elsewhere = f"{live}.{mark}" if beside else os.path.join(staging, _OUTSIDE, str(len(staged)))
        target = os.path.join(staging, live[len(palace) :]) if inside else elsewhere
        staged[live] = target
        copy_file(snapshot.file(name), target, advance, into=staging if inside or not beside else "")
    for target in [staging, *(path for path in staged.values() if not path.startswith(f"{staging}/"))]:
        with folder_of(target) as (folder, name):
            _sync(folder, name)


def _sync(folder: SharedFolder, name: str) -> None:
    """Write a file out to the disk, or a folder with all that is in it, and its name."""
    found = folder.look(name)
    if found is not None and stat.S_ISDIR(found.st_mode):
        with folder.folder(name) as inner:
            for entry in inner.names():
                _sync(inner, entry)
            inner.sync()
    else:
        fd = folder.open_read(name)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    folder.sync()


def _moves(context: Context, staged: dict[str, str], staging: str, aside: str) -> list[Move]:
    """What has to be renamed, now that nobody has the palace open: whole entries of its folder, and files elsewhere."""
    palace = context.identity.path
    new = {live[len(palace) + 1 :].split("/")[0] for live in staged if live.startswith(palace + "/")}
    with SharedFolder.open(palace) as folder:
        old = {name for name in folder.names() if not is_brokers(name)}
    moves = [
        Move(os.path.join(staging, name) if name in new else "", os.path.join(palace, name), os.path.join(aside, name))
        for name in sorted(new | old)
    ]
    for live, path in staged.items():
        if not live.startswith(palace + "/"):
            base = f"{live}.{aside.rpartition('.')[2]}"
            moves.append(Move(path, live, base))
            moves += [Move("", live + suffix, base + suffix) for suffix in SIDE_FILES if os.path.lexists(live + suffix)]
    return moves
