"""Refuses a state root or palace that other users can write to, as sshd and postgres refuse theirs (StrictModes).

Whoever can write there decides what a broker and its clients read. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os
import stat

from ..errors import StateRootError
from .file_trust import others_write, trusted_owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .paths import StateFiles


def check_folders(files: StateFiles, is_local: Callable[[str], bool | None]) -> None:
    """Check the state root and the palace; one that is missing passes.

    Args:
        is_local: `locality.mounts.is_local`. On a filesystem of another kernel owners and modes may be made up.

    Raises:
        StateRootError: another user owns one, or can write there; with the command that fixes it.
    """
    for path in {files.root: None, files.palace: None}:
        try:
            _check_modes(path)
        except StateRootError:
            if is_local(path) is not False:
                raise


def _check_modes(path: str) -> None:
    """Refuse a folder that other users can write to, as sshd and postgres refuse theirs; one that is missing passes.

    Only where modes mean something: a virtual machine's mounts may show any mode.

    Raises:
        StateRootError: with the command that fixes it.
    """
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise StateRootError(f"cannot look at {path}: {exc.strerror or exc}.", hint=f"ls -ld {path}") from exc
    if info.st_uid not in trusted_owners(info):
        raise StateRootError(
            f"{path} belongs to another user (uid {info.st_uid}), who could put anything there.",
            hint=f"sudo chown -R {os.geteuid()} {path}, or run this as its owner",
        )
    if others_write(info):
        hint = f"chmod go-w {path}"
        if info.st_mode & stat.S_ISVTX:  # /tmp and its like
            hint = "move the palace into a folder of its own (mkdir -m 700), and name that with --palace"
        raise StateRootError(f"other users can write to {path} (mode {info.st_mode & 0o7777:o}).", hint=hint)
