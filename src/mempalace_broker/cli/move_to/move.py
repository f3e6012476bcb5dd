"""Has the engine's interpreter copy the drawers while the palace is lent to us, then renames the new store into it."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from ...broker.engine_launch import BOOTSTRAP, engine_env, package_root
from ...errors import StateRootError, UsageError, file_hint
from ...protocol.hello import RESTART
from ...route.engine_version import expected_engine
from ...settings_files import PrivateSettings
from ...system.clock import Deadline
from ...system.environment import known_environment
from ...system.find_palace import STORES
from ...system.palace_stores import check_stores, names_index
from ...system.pending_restore import Move, finish_restore, write_moves
from ...system.shared_files import SharedFolder
from ..exclusive.borrow import Borrower, refuse_elsewhere
from ..exclusive.child import run_command
from ..outcome import EXIT_INTERRUPTED
from ..serve import ensure
from ..staging import staging_folder
from ..stop import stop
from .address import keep_address

if TYPE_CHECKING:
    from ...system.paths import Context
    from ..exclusive.borrow import Loan

_PROGRAM = BOOTSTRAP.replace("engine.worker", "engine.moving")  # ended as by any other kill: a repetition goes on
_SUFFIXES = ("", "-wal", "-shm", "-journal")
_EMBEDDER = "mempalace_embedder.json"  # which model made the vectors; each store has its own
_STATE = "moving.json"  # in the private folder: others may be able to make a folder beside the palace
_STAGING = "moving-to-"
_LIMIT = 1 << 16


def move(context: Context, backend: str, *, wait_s: float, replace: bool) -> str | None:
    """Move the palace's drawers to `backend`.

    Returns:
        Where the old store is kept; None if the copying failed, which has reported why.

    Raises:
        BrokerError: as `Borrower.borrow`, `keep_address` and `expected_engine`; StateRootError: renames failed.
    """
    refuse_elsewhere(context)
    palace = context.identity.path
    check_stores(palace, context.identity.graph)
    if os.path.isdir(palace) and os.stat(palace).st_uid != os.geteuid():
        raise UsageError(f"{palace} is another user's.", hint="run this as that user")
    interpreter = expected_engine(context.env, palace).interpreter
    if backend == "pgvector":
        keep_address(context)
        if stop(context, now=False, why="mempalace-broker move-to", method=RESTART)["was_running"]:
            ensure(context)  # it reads config.toml: its next engine needs the address there
    own = ("mempalace-broker", "move-to", backend)
    with Borrower(context, own, wait_s).borrow(Deadline.after(context.clock, wait_s)) as loan:
        try:
            return _move(context, interpreter, own, loan, replace=replace)
        except OSError as exc:
            raise StateRootError(f"the drawers were not moved: {exc}.", hint=file_hint(exc)) from exc


def _move(context: Context, interpreter: str, own: tuple[str, ...], loan: Loan, *, replace: bool) -> str | None:
    palace, backend, note = context.identity.path, own[-1], context.files.private.file(_STATE)
    aside = (
        f"{palace}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(context.clock.wall()))}-{os.urandom(3).hex()}"
    )
    # left by an earlier run that was killed: then the new store holds only what that run put there
    begun = note.read_object(_LIMIT).get("target") == backend
    with staging_folder(context, _STAGING, backend, goes_on=begun) as staging:
        argv = [interpreter, "-c", _PROGRAM, package_root()]
        argv += ["--palace", context.identity.name, "--by", context.identity.by, "--target", backend]
        argv += ["--root", context.files.root, "--staging", staging, "--note", note.path]
        argv += ["--replace"] if replace or begun else []
        env = known_environment(context.env)
        env = engine_env(env, context.identity, PrivateSettings.read(env).broker(env, palace).env)
        if code := run_command(context, argv, loan, None, env=env, own=own):
            if not os.path.exists(note.path):  # nothing was begun
                shutil.rmtree(staging, ignore_errors=True)
            if code == EXIT_INTERRUPTED:
                raise KeyboardInterrupt
            return None
        moves = _moves(palace, staging, aside)
        drop = [staging, os.path.join(context.files.root, "broker-index"), note.path]
        write_moves(context.files.restore, moves, drop)
        finish_restore(context.files.restore)
    return aside


def _moves(palace: str, staging: str, aside: str) -> list[Move]:
    """Move the old store's files to `aside` and the new one's into the palace; everything else there stays."""
    with SharedFolder.open(palace) as folder:
        old = set(filter(_is_store, folder.names()))
    with SharedFolder.open(staging) as folder:
        new = set(filter(_is_store, folder.names()))
    return [
        Move(os.path.join(staging, name) if name in new else "", os.path.join(palace, name), os.path.join(aside, name))
        for name in sorted(old | new)
    ]


def _is_store(name: str) -> bool:
    """Whether an entry of a palace's folder belongs to its store of drawers."""
    databases = {store + suffix for store in STORES for suffix in _SUFFIXES}
    return names_index(name) or name == _EMBEDDER or name in databases
