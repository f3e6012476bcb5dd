"""Refuses a state root or palace that other users can write to, as sshd and postgres refuse theirs (StrictModes).

Whoever can write there decides what a broker and its clients read. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..errors import StateRootError
from .shared_files import check_modes

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
            check_modes(path)
        except StateRootError:
            if is_local(path) is not False:
                raise
