"""Refuses a state root or palace that other users can write to, as sshd and postgres refuse theirs (StrictModes).

Whoever can write there decides what a broker and its clients read. `mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..errors import StateRootError
from ..system.shared_files import check_modes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.paths import StateFiles


def check_folders(files: StateFiles) -> None:
    """Check the state root and the palace; one that is missing passes.

    Raises:
        StateRootError: another user owns one, or can write there; with the command that mends it.
    """
    check_folder(files.root)
    if files.palace != files.root:
        check_folder(files.palace)


def check_folder(path: str) -> None:
    """As `check_folders`, for one folder. On a filesystem of another kernel owners and modes may be made up."""
    try:
        check_modes(path)
    except StateRootError:
        from .mounts import is_local  # late: the usual folder passes

        if is_local(path) is not False:
            raise
