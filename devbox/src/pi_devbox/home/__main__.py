"""Fill $HOME from a skeleton, and warn of a whole home of the host: what the entry point runs at every start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .fill import fill
from .mounts import mounts, whole_homes


def say(text: str) -> None:
    """Print one line, as the entry point's scripts do."""
    print(f"devbox: {text}", file=sys.stderr)


home, found = Path(os.environ["HOME"]), mounts()
for path in whole_homes(found, home):
    say(
        f"{path} is a whole home of the host: whatever runs in here can read its keys and act as its user. "
        "Hint: mount only the project and the palace"
    )
fill(Path(sys.argv[1]), home, [mount.point for mount in found if home in mount.point.parents], say)
