"""What of the host is mounted into this container."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_VOLUME = re.compile(r"/volumes/[^/]+/_data$")  # where docker and podman keep a volume
_PRIVATE = (".config/mempalace-broker", ".mempalace")  # in a home whose user has a broker or a palace


class Mount(NamedTuple):
    """One mount: where it is, and which directory of its file system it shows."""

    point: Path
    shows: str


def mounts() -> list[Mount]:
    """List the mounts of this mount namespace."""
    lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").splitlines()
    return [Mount(Path(_unescaped(fields[4])), _unescaped(fields[3])) for fields in map(str.split, lines)]


def whole_homes(found: Iterable[Mount], home: Path, exists: Callable[[Path], bool] = os.path.exists) -> list[Path]:
    """Which mounted directories are a user's home on the host, with its keys and the broker's private files."""
    points = {mount.point: mount.shows for mount in found}
    suspects = [path for point in points if point not in (Path("/"), home) for path in _homes_in(point, exists)]
    homes = [path for path in suspects if any(exists(path / name) for name in _PRIVATE)]
    if not _VOLUME.search(points.get(home, "/volumes/none/_data")):
        palace = home / ".mempalace"
        homes += [home] if exists(palace) and palace not in points else []
    return homes


def _homes_in(point: Path, exists: Callable[[Path], bool]) -> list[Path]:
    """The directories below a mount that may be homes."""
    folders = [point / name for name in ("home", "Users") if exists(point / name)]
    return [point, point / "root", *(path for folder in folders for path in sorted(folder.glob("*")))]


def _unescaped(text: str) -> str:
    """Decode the octal escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
