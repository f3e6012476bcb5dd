"""The renames by which `backup restore` puts a snapshot in the palace's place, so that a kill can't leave half of them.

All new files lie ready beside the old ones before the list of renames is written. From then on whoever has engine.lock
next carries it out: the restore itself, a broker before it starts an engine, or the next command that gets the palace.
Each rename is done, or shows that it was done.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from ..errors import StateRootError
from .shared_files import SharedFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .private import PrivateFile

_LIMIT = 16 << 20


class Move(NamedTuple):
    """One name: what is at `live` goes to `aside`; then `new`, unless that is "", goes to `live`."""

    new: str
    live: str
    aside: str


def write_moves(marker: PrivateFile, moves: Sequence[Move], drop: Sequence[str]) -> None:
    """Decide that these renames happen, and afterwards these folders go. Raises OSError where it can't be written."""
    marker.write(json.dumps({"moves": moves, "drop": list(drop)}).encode())


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
        for folder in {os.path.dirname(path) for move in moves for path in move if path}:
            _sync(folder)
        for path in said["drop"]:
            shutil.rmtree(path, ignore_errors=True)
        os.unlink(marker.path)
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise StateRootError(
            f"a restore of the palace was interrupted and can't be finished: {exc}.",
            hint=f"put that right; the renames that are left are listed in {marker.path}",
        ) from exc
    return len(moves)


def _carry_out(move: Move) -> None:
    pending = os.path.lexists(move.new) if move.new else True
    if pending and os.path.lexists(move.live) and not os.path.lexists(move.aside):
        os.makedirs(os.path.dirname(move.aside), mode=0o700, exist_ok=True)
        _rename(move.live, move.aside)
    if move.new and pending:
        _rename(move.new, move.live)


def _rename(old: str, new: str) -> None:
    """Rename between two folders that are no links: others may put one in their place. Raises OSError."""
    with SharedFolder.open(os.path.dirname(old)) as source, SharedFolder.open(os.path.dirname(new)) as target:
        os.rename(os.path.basename(old), os.path.basename(new), src_dir_fd=source.fd, dst_dir_fd=target.fd)


def _sync(folder: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
