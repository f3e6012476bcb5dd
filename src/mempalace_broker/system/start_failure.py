"""Why a start failed a moment ago, for other clients that waited for the same start.

Without it, a hundred clients of a daemon that can't start would start it a hundred times. It lies in a private folder,
because an agent reads these words as an error. `mp-shim` imports this module where it starts a daemon: keep it lean.
"""

from __future__ import annotations

from ..errors import StartFailed
from ..protocol.jsonrpc import to_bytes
from ..protocol.text import printable
from .shared_files import unlink_quietly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .private import PrivateFile

COUNTS_S = 3.0  # how long those who waited for the same start take its failure for theirs
_LIMIT = 16_384
_MAX_REASON, _MAX_HINT = 2000, 500


def note_failure(file: PrivateFile, error: StartFailed, now: float) -> None:
    """Leave a failure for others; without a private folder they find out for themselves. `now`: wall-clock seconds."""
    note = {"at": now, "failed": error.message[:_MAX_REASON], "hint": error.hint[:_MAX_HINT]}
    try:  # noqa: SIM105 - contextlib is beyond the shim's import budget
        file.write(to_bytes(note))
    except OSError:
        pass  # a full disk must not hide why the daemon did not start


def forget_failure(file: PrivateFile) -> None:
    """Another start is tried: the last failure says nothing about it."""
    unlink_quietly(file.path)


def recent_failure(file: PrivateFile, now: float) -> StartFailed | None:
    """The failure that was noted a moment ago, None where there was none. `now`: wall-clock seconds."""
    note = file.read_object(_LIMIT)
    at, failed, hint = note.get("at"), note.get("failed"), note.get("hint")
    if not isinstance(failed, str) or not failed or not isinstance(at, float | int) or not 0 <= now - at < COUNTS_S:
        return None
    return StartFailed(printable(failed, _MAX_REASON), hint=printable(hint, _MAX_HINT) if isinstance(hint, str) else "")
