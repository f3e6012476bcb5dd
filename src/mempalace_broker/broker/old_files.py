"""Files that earlier brokers kept in the shared state root, and that belong into the user's private folder now.

The log is moved, once, each line marked. Exit reason and cached answers are removed: whoever has the root mounted could
write them, people and models would read them as a broker's own words, and a new broker has its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..system.logs import PREVIOUS
from ..system.shared_files import SharedFolder

if TYPE_CHECKING:
    import logging

    from ..system.paths import StateFiles

_MOST = 8 << 20  # bytes that are moved of one file
_MARK = b"(moved) "  # others could write those lines: none may look like one of ours


def move_old_files(files: StateFiles, log: logging.Logger) -> None:
    """Move what an older broker left in the root. Never raises: a file that can't be moved is named in the log."""
    try:
        with SharedFolder.open(files.root) as root:
            for path in (files.log + PREVIOUS, files.log):
                _move(root, path, log)
            for path in (files.exit.path, files.answers.path):
                name = os.path.basename(path)
                if root.remove(name):
                    log.info("removed %s: such a file is kept in %s now", files.in_root(name), files.private.path)
    except OSError as exc:
        log.warning("cannot move old files out of %s: %s", files.root, exc)


def _move(root: SharedFolder, path: str, log: logging.Logger) -> None:
    """Move one log."""
    name = os.path.basename(path)
    try:
        data = root.read(name, _MOST)
        if data is None:
            return
        with open(path, "ab") as file:  # the log is there already: the process that started us opened it
            if file.tell() == 0:
                file.write(b"".join(_MARK + line for line in data[:_MOST].splitlines(keepends=True)))
        root.remove(name)
    except OSError as exc:
        log.warning("cannot move %s to %s: %s", os.path.join(root.path, name), path, exc)
        return
    log.info("moved %s to %s", os.path.join(root.path, name), path)
