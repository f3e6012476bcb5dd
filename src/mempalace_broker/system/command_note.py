"""The note of a command in the locks that it holds while it has the palace for itself, see cli/exclusive.

An engine's note names a process (lock_notes.py); this one also names the command. Anybody who can write the palace can
write the one in engine.lock, so it decides nothing but whether a holder of that lock is killed as an engine would be: a
command never is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..protocol.write_lock import command_name
from .lock import is_held
from .lock_notes import read_note, write_note
from .process_ids import process_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lock import FileLock
    from .paths import StateFiles

_MAX_TIME = 1 << 40


def write_command(lock: FileLock, pid: int, argv: Sequence[str], since: float) -> None:
    """Say which command holds this lock, which we hold. `since`: seconds since 1970.

    Raises:
        StateRootError: it can't be written.
    """
    who = process_of(pid)
    words = {name: getattr(who, name) for name in who.FIELDS}
    write_note(lock, {**words, "command": command_name(list(argv)) or "a command", "since": round(since)})


def command_at_work(files: StateFiles) -> str:
    """The command that has the palace for itself, in words; "" where there is none."""
    for path in filter(None, (files.command_lock, files.engine_lock)):
        words = read_command(path)
        if words and is_held(path):
            return words
    return ""


def read_command(path: str) -> str:
    """Which command holds the lock at `path`, since when, in words; "" where the note is an engine's, or none."""
    note = read_note(path)
    command, pid, since = (note.get(name) for name in ("command", "pid", "since"))
    if not isinstance(command, str):
        return ""
    name = command_name(command.split()) or "a command"
    who = f"pid {pid} ({name})" if type(pid) is int and pid > 0 else name
    if type(since) is not int or not 0 < since < _MAX_TIME:
        return who
    return f"{who}, since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))}"
