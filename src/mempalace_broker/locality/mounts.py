"""The mount table, and whether a path lies on a filesystem that only this kernel can have mounted.

On one that another kernel may write to as well (a virtual machine's virtiofs, NFS), locks and sockets prove nothing.
"""

from __future__ import annotations

import os

from ..system import kernel
from .machine.path_map import Mount, mount_of

# Local disks and memory. Overlay counts: its upper layer is private to the kernel that mounted it.
_LOCAL = frozenset(
    "ext2 ext3 ext4 xfs btrfs zfs f2fs jfs bcachefs tmpfs ramfs overlay apfs hfs ufs vfat exfat".split()  # noqa: SIM905 - words
)
_SHARED = frozenset(
    "virtiofs fakeowner 9p nfs nfs4 cifs smb3 smbfs afpfs ceph lustre afs vboxsf prl_fs "  # noqa: SIM905 - words
    "virtio-fs webdav macfuse osxfuse".split()
)
# No user has folders on these.
_NO_FOLDERS = frozenset(
    "proc sysfs devpts devtmpfs cgroup cgroup2 mqueue securityfs debugfs tracefs bpf pstore configfs fusectl "  # noqa: SIM905 - words
    "hugetlbfs autofs binfmt_misc nsfs rpc_pipefs efivarfs".split()
)


def mount_table(table: str | None = None) -> list[Mount]:
    """The mounts of this namespace that can be seen, [] where there is no such table (macOS).

    Mounts that a later one covers are left out: of the rest, the one with the longest mount point holds a path.

    Args:
        table: text of /proc/self/mountinfo, read if not given.
    """
    if table is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                table = file.read()
        except OSError:
            return []
    return _visible([line for text in table.splitlines() if (line := _parse(text)) is not None])


def folders_table() -> list[list[str]]:
    """The mounts that may hold folders of users, as rows for the wire; unprintable names are left out."""
    rows = [mount.row() for mount in mount_table() if mount.kind not in _NO_FOLDERS]
    return [row for row in rows if all(cell.isprintable() for cell in row)]


def filesystem_of(path: str, table: str | None = None) -> str:
    """The type of the filesystem that holds `path`, "" if it can't be told.

    Args:
        path: need not exist; symlinks are resolved.
        table: text of /proc/self/mountinfo, read if not given.
    """
    if table is None and kernel.MACOS:
        return _look_on_a_mac(path)[0]
    mount = mount_of(os.path.realpath(path), mount_table(table))
    return mount.kind if mount is not None else ""


def is_local(path: str) -> bool | None:
    """True for a known-local filesystem, False for a known-shared one, None when that can't be told."""
    if kernel.MACOS:
        kind, stored_here = _look_on_a_mac(path)
        return False if judge_filesystem(kind) is False else stored_here
    return judge_filesystem(filesystem_of(path))


def _look_on_a_mac(path: str) -> tuple[str, bool | None]:
    """The type of the filesystem, and whether it is stored on this Mac; ("", None) where that can't be told."""
    from ..system.darwin import filesystem

    there = os.path.realpath(path)
    while not os.path.exists(there) and there != "/":
        there = os.path.dirname(there)
    return filesystem(there)


def judge_filesystem(kind: str) -> bool | None:
    """As `is_local`, for a filesystem type."""
    if kind in _LOCAL:
        return True
    return False if kind in _SHARED or kind.startswith("fuse") else None


class _Line:
    __slots__ = ("mount", "number", "parent")

    def __init__(self, number: str, parent: str, mount: Mount) -> None:
        self.number = number
        self.parent = parent
        self.mount = mount


def _visible(lines: list[_Line]) -> list[Mount]:
    """The mounts that a path can get to; in the time that it takes to read them, for a guest may have made thousands.

    A mount on a folder below another mount's point has that one as its parent. So of two with the same parent, where
    one's point lies below the other's, the deeper one is older and covered; so is what has another on its very point.
    """
    numbers = {line.number for line in lines}
    mounted_on: dict[str, list[_Line]] = {}
    for line in lines:
        mounted_on.setdefault("" if line.parent == line.number else line.parent, []).append(line)
    found: list[Mount] = []
    waiting = [line for line in reversed(lines) if line.parent not in numbers or line.parent == line.number]
    while waiting:
        line = waiting.pop()
        on_it = mounted_on.pop(line.number, [])
        over = [child for child in on_it if child.mount.point == line.mount.point]
        if over:
            waiting.append(over[-1])
            continue
        found.append(line.mount)
        highest = _highest({child.mount.point for child in on_it})
        waiting += [child for child in reversed(on_it) if child.mount.point in highest]
    return found


def _highest(points: set[str]) -> set[str]:
    """Those mount points that lie below no other of them."""
    found: set[str] = set()
    last = ""
    for point in sorted(points, key=_folder):
        if not last or not _folder(point).startswith(last):
            found.add(point)
            last = _folder(point)
    return found


def _folder(point: str) -> str:
    return point.rstrip("/") + "/"


def _parse(line: str) -> _Line | None:
    """One mountinfo line, None for anything else."""
    head, dash, tail = line.partition(" - ")
    fields, kinds = head.split(" "), tail.split(" ")
    if not dash or len(fields) < 5 or not kinds[0]:
        return None
    return _Line(fields[0], fields[1], Mount(fields[2], _plain(fields[3]), _plain(fields[4]), kinds[0]))


def _plain(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
