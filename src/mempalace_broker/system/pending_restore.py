"""The renames by which `backup restore` puts a snapshot in the palace's place, so that a kill can't leave half of them.

All new files lie ready beside the old ones before the list of renames is written. From then on whoever has engine.lock
next carries it out: the restore itself, a broker before it starts an engine, or the next command that gets the palace.
Each rename is done, or shows that it was done. Guests can write where they happen: no link is followed to there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from typing import TYPE_CHECKING, NamedTuple

from ..errors import StateRootError, file_step
from .shared_files import SharedFolder, Untrusted, unlink_quietly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .private import PrivateFile

_LIMIT = 256 << 20  # of the list; a guest can put any number of files into the palace, each with a name of its own


class Move(NamedTuple):
    """One name: what is at `live` goes to `aside`; then `new`, unless that is "", goes to `live`."""

    new: str
    live: str
    aside: str


def write_moves(marker: PrivateFile, moves: Sequence[Move], drop: Sequence[str]) -> None:
    """Decide that these renames happen, and afterwards these folders and files go. Raises OSError where it can't be
    written, or would be too long to be read.
    """
    data = json.dumps({"moves": moves, "drop": list(drop)}).encode()
    if len(data) > _LIMIT:
        raise OSError(errno.EFBIG, f"{len(moves)} files are too many to be moved aside")
    marker.write(data)


def finish_restore(marker: PrivateFile) -> int:
    """Carry out the renames that a restore has decided on; how many there are, 0 where there is no such list.

    Call it only with engine.lock held, while nobody has the palace open.

    Raises:
        StateRootError: one of them fails; the list stays.
    """
    if not marker.path or not os.path.lexists(marker.path):
        return 0
    try:
        said = json.loads(marker.read(_LIMIT) or b"")
        moves = [Move(*map(str, move)) for move in said["moves"]]
        for move in moves:
            _carry_out(move)
        with contextlib.ExitStack() as stack:
            for folder in {os.path.dirname(path) for move in moves for path in move if path}:
                if (opened := _open_folder(folder, stack)) is not None:
                    opened.sync()
        for path in said["drop"]:
            shutil.rmtree(path, ignore_errors=True)
            unlink_quietly(path)
        os.unlink(marker.path)
    except (OSError, ValueError, TypeError, KeyError) as exc:
        step = "" if isinstance(exc, Untrusted) else file_step(exc)
        step = f"{step}, then try again;" if step else "put back what is missing:"
        raise StateRootError(
            f"a restore of the palace was interrupted and can't be finished: {exc}.",
            hint=f"{step} {marker.path} lists the renames. Without that file the restore is given up; old files that "
            "it has moved already stay in *.before-*",
        ) from exc
    return len(moves)


def _carry_out(move: Move) -> None:
    new, live, aside = map(os.path.basename, move)
    with contextlib.ExitStack() as stack:
        staging = _open_folder(os.path.dirname(move.new), stack) if move.new else None
        if move.new and (staging is None or staging.look(new) is None):
            return  # it was done before
        folder = _open_folder(os.path.dirname(move.live), stack)
        if folder is None:
            raise FileNotFoundError(f"there is no {os.path.dirname(move.live)}")
        if folder.look(live) is not None:
            beside = _open_folder(os.path.dirname(move.aside), stack, make=True)
            if beside is not None and beside.look(aside) is None:
                folder.rename(live, aside, into=beside)
        if staging is not None:
            staging.rename(new, live, into=folder)


def _open_folder(path: str, stack: contextlib.ExitStack, *, make: bool = False) -> SharedFolder | None:
    """A folder in one that guests may be able to write to; None where it is missing, unless `make` says to make it.

    Raises:
        OSError: as the system reports it, also for a link in its place.
    """
    above, name = os.path.split(path)
    try:
        with SharedFolder.open(above) as outer:
            if make and (found := outer.look(name)) is not None and not stat.S_ISDIR(found.st_mode):
                outer.remove(name)  # a guest put it there; the folder for the old files is none of its business
            return stack.enter_context(outer.folder(name, make=make) if name else SharedFolder.open(path))
    except FileNotFoundError:
        return None
