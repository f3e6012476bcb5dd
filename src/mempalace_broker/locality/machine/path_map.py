"""A caller's path as the broker's: by what is mounted on both sides, else not at all.

Inside a container a path names a file of the container. The broker, outside, can open it only if that file lies
on a filesystem that it has mounted too. Three sources say so, in this order:

1. the user's own table ([container.paths] in config.toml);
2. the state root, which both sides have by definition: /home/dev/.mempalace here is /Users/me/.mempalace there;
3. the mount tables: under one kernel a device number and the path inside that filesystem name a file for both.
   Across kernels device numbers mean nothing, but all mounts of *our* one shared device come from the same export,
   so where the export's path of the state root is known, the others follow.

A path that none of them covers is refused: guessing would mine somebody else's files.
"""

from __future__ import annotations


class Mount:
    """One line of a mount table. (No NamedTuple: `typing` is a megabyte in each shim that found no broker.)

    Attributes:
        dev: "major:minor" of the filesystem. root: the folder of that filesystem that is mounted.
        point: where. kind: the filesystem's type.
    """

    __slots__ = ("dev", "kind", "point", "root")

    def __init__(self, dev: str, root: str, point: str, kind: str) -> None:
        self.dev = dev
        self.root = root
        self.point = point
        self.kind = kind

    def row(self) -> list[str]:
        """For the wire; `read_mounts` reads it back."""
        return [self.dev, self.root, self.point, self.kind]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mount) and self.row() == other.row()

    def __hash__(self) -> int:
        return hash(tuple(self.row()))

    def __repr__(self) -> str:
        return f"Mount{tuple(self.row())!r}"


def read_mounts(rows: object) -> list[Mount]:
    """A mount table as it comes over the wire; anything that is not a row is left out."""
    return [
        Mount(*row)
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, list) and len(row) == 4 and all(isinstance(cell, str) for cell in row)
    ]


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that a clean absolute path lies on. `mounts`: without any that are covered."""
    best: Mount | None = None
    for mount in mounts:
        if under(path, mount.point) is not None and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def under(path: str, folder: str) -> str | None:
    """The rest of `path` below `folder` without a leading slash ("" for the folder itself), None if it isn't there."""
    if folder == "/":
        return path[1:]
    if path == folder:
        return ""
    return path[len(folder) + 1 :] if path.startswith(folder + "/") else None


def join(folder: str, rest: str) -> str:
    """`rest` below `folder`."""
    if not rest:
        return folder
    return f"{folder.rstrip('/')}/{rest}"


def parent(path: str) -> str:
    """The folder that holds a clean absolute path."""
    return path.rsplit("/", 1)[0] or "/"


def same_device_name(path: str, mine: list[Mount], theirs: list[Mount]) -> str | None:
    """One kernel: the other side's name for what lies at `path` here, where it has mounted that too, uncovered."""
    mount = mount_of(path, mine)
    if mount is None:
        return None
    inside = join(mount.root, under(path, mount.point) or "")
    points = {other.point: other for other in theirs}
    for other in reversed(theirs):
        rest = under(inside, other.root)
        if other.dev != mount.dev or rest is None:
            continue
        there = join(other.point, rest)
        if _nearest(there, points) == other:
            return there
    return None


def _nearest(path: str, points: dict[str, Mount]) -> Mount | None:
    """The mount that a clean absolute path lies on, found by its folders: a guest may have thousands of mounts."""
    while path not in points and path != "/":
        path = parent(path)
    return points.get(path)


class PathMap:
    """Translates one caller's paths. All paths are absolute, without links, `.` and `..`.

    Args:
        mine, theirs: mount tables of the caller and of the broker.
        palace_mine, palace_theirs: the palace directory as either calls it.
        same_kernel: whether device numbers mean the same to both.
        fixed: the user's own table, {prefix here: prefix there}.
    """

    def __init__(
        self,
        *,
        mine: list[Mount],
        theirs: list[Mount],
        palace_mine: str,
        palace_theirs: str,
        same_kernel: bool,
        fixed: dict[str, str] | None = None,
    ) -> None:
        self._mine = mine
        self._theirs = theirs
        self._same_kernel = same_kernel
        self._fixed = sorted((fixed or {}).items(), key=lambda pair: -len(pair[0]))
        self._palace = (palace_mine, palace_theirs)

    def translate(self, path: str) -> str | None:
        """The broker's name for the file, None where it can't be known."""
        for here, there in self._fixed:
            rest = under(path, here)
            if rest is not None:  # unless this side has something else mounted inside
                return join(there, rest) if mount_of(path, self._mine) == mount_of(here, self._mine) else None
        found = self._by_state_root(path)
        if found is not None:
            return found
        return same_device_name(path, self._mine, self._theirs) if self._same_kernel else self._by_export(path)

    def _roots(self) -> tuple[str, str]:
        """The state root here and there: the palace's parent where that is certain to be shared as well."""
        here, there = self._palace
        if here.endswith("/palace") and there.endswith("/palace"):
            outer = parent(here)
            if mount_of(outer, self._mine) == mount_of(here, self._mine):
                return outer, parent(there)
        return here, there

    def _by_state_root(self, path: str) -> str | None:
        here, there = self._roots()
        rest = under(path, here)
        if rest is None or mount_of(path, self._mine) != mount_of(here, self._mine):
            return None  # something else is mounted in between
        found = join(there, rest)
        return found if mount_of(found, self._theirs) == mount_of(there, self._theirs) else None

    def _by_export(self, path: str) -> str | None:
        """Two kernels: what lies on the same shared device as the state root lies in the same export."""
        here, there = self._roots()
        anchor, mount = mount_of(here, self._mine), mount_of(path, self._mine)
        if anchor is None or mount is None or anchor.dev != mount.dev:
            return None
        inside = join(anchor.root, under(here, anchor.point) or "")
        if inside == "/":
            base = there
        elif there.endswith(inside):
            base = there[: -len(inside)] or "/"
        else:
            return None  # the export's names are not the host's
        return join(base, join(mount.root, under(path, mount.point) or "").lstrip("/"))
