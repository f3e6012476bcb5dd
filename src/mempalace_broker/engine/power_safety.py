"""The setting power_safe: a write is answered once the drive has it where power does not matter."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from ..errors import INTERNAL_ERROR
from ..system.kernel import sync_volume
from . import payload

if TYPE_CHECKING:
    from .adapter import Mempalace

_UNCONFIRMED = "%s was executed, but %s. Hint: look at the disk; then read back what was written."


class PowerSafety:
    """Flushes the volumes of a palace, past the caches of system and drives.

    A whole volume, because no file of the palace may be opened here: closing a database would drop SQLite's locks.

    Args:
        mempalace: its options say whether to flush at all. journal: path of the journal of writes, None where none is.
    """

    def __init__(self, mempalace: Mempalace, journal: str | None) -> None:
        self._folders: list[str] = []
        if mempalace.options.power_safe:
            files = filter(None, (mempalace.graph_path(), journal))
            self._folders = [mempalace.palace_path(), *map(os.path.dirname, files)]

    def confirm(self, request: Any, tool: str | None) -> dict[str, Any] | None:
        """Flush each volume once; return the error that answers the call where that failed."""
        try:
            volumes = {os.stat(folder).st_dev: folder for folder in self._folders if os.path.isdir(folder)}
            for folder in volumes.values():
                sync_volume(folder)
        except OSError as exc:
            text = _UNCONFIRMED % (tool, f"the disk did not confirm it ({exc.strerror or exc})")
            print(f"power_safe: {text}", file=sys.stderr, flush=True)
            return payload.error_response(payload.request_id(request), INTERNAL_ERROR, text)
        return None
