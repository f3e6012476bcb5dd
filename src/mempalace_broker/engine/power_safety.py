"""The setting power_safe: a write is answered once the drive has it where power does not matter."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..system.kernel import sync_volume

if TYPE_CHECKING:
    from collections.abc import Sequence


class PowerSafety:
    """Flushes the volumes of a palace, past the caches of system and drives.

    A whole volume, because no file of the palace may be opened here: closing a database would drop SQLite's locks.

    Args:
        places: the palace and its files that lie elsewhere; those of one volume cost one flush.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places

    def confirm(self) -> str:
        """Flush; return why that failed, "" if it did not."""
        try:
            volumes = {os.stat(place).st_dev: place for place in self._places if os.path.isdir(place)}
            for place in volumes.values():
                sync_volume(place)
        except OSError as exc:
            problem = f"the disk did not confirm it ({exc.strerror or exc})"
            print(f"power_safe: {problem}", file=sys.stderr, flush=True)
            return problem
        return ""
