"""Whether a path lies on a filesystem that only this kernel can have mounted.

Locks and sockets prove nothing on one that another kernel may write to as well (a virtual machine's virtiofs,
NFS).
"""

from __future__ import annotations

import os
import sys

# Local disks and memory. Overlay counts: its upper layer is private to the kernel that mounted it.
_LOCAL = frozenset(
    "ext2 ext3 ext4 xfs btrfs zfs f2fs jfs bcachefs tmpfs ramfs overlay apfs hfs ufs vfat exfat".split()  # noqa: SIM905 - words
)
_SHARED = frozenset(
    "virtiofs 9p nfs nfs4 cifs smb3 smbfs afpfs ceph lustre afs vboxsf prl_fs".split()  # noqa: SIM905 - words
)


def filesystem_of(path: str, table: str | None = None) -> str:
    """The type of the filesystem that holds `path`, "" if it can't be told.

    Args:
        path: need not exist; symlinks are resolved.
        table: text of /proc/self/mountinfo, read if not given.
    """
    if table is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                table = file.read()
        except OSError:
            return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in table.splitlines():
        point, found = _parse(line)
        inside = point in ("/", real) or real.startswith(point + "/")
        if point and inside and len(point) >= len(best):  # of equal ones the last mounted covers the others
            best, kind = point, found
    return kind


def is_local(path: str) -> bool | None:
    """True for a known-local filesystem, False for a known-shared one, None when that can't be told."""
    if sys.platform == "darwin":
        return None  # no mountinfo; a Mac's own processes all live under one kernel anyway
    kind = filesystem_of(path)
    if kind in _LOCAL:
        return True
    return False if kind in _SHARED or kind.startswith("fuse") else None


def _parse(line: str) -> tuple[str, str]:
    """(mount point, filesystem type) of a mountinfo line; ("", "") of anything else."""
    head, dash, tail = line.partition(" - ")
    fields, kinds = head.split(" "), tail.split(" ")
    if not dash or len(fields) < 5 or not kinds[0]:
        return "", ""
    point = fields[4]
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, char)
    return point, kinds[0]
