"""Whose files count in a folder that others can write to, and whose the files that we make there are.

The engine runs this module too (Python 3.9). `mp-shim` imports it: keep it lean.
"""

from __future__ import annotations

import os
import stat

from ..errors import StateRootError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def give_to_owner(fd: int, folder: os.stat_result, *, by: str = "") -> None:
    """Where we are root in a folder of another user (sudo, a container's root), let our file belong to that user.

    A file of root would lock the owner out. One that has a second name is left alone, for that may be anywhere; so is
    what is mounted there.

    Args:
        fd: the file or folder. folder: in which it lies. by: its path, for a descriptor that only names it.

    Raises OSError.
    """
    if os.geteuid() or not folder.st_uid:
        return
    info = os.fstat(fd)
    kind = stat.S_IFMT(info.st_mode)
    ours = kind == stat.S_IFDIR or (kind in (stat.S_IFREG, stat.S_IFSOCK) and info.st_nlink == 1)
    if ours and info.st_uid == 0 and info.st_dev == folder.st_dev:
        os.chown(by or fd, folder.st_uid, folder.st_gid)


def trusted_owners(folder: os.stat_result) -> tuple[int, ...]:
    """The users whose files count in a folder: we, root, and its owner where we are root (sudo, containers)."""
    me = os.geteuid()
    return (me, 0) if me else (0, folder.st_uid)


def distrust_file(info: os.stat_result, owners: tuple[int, ...]) -> str:
    """Why a file that is open can't be trusted, "" if it can."""
    if not stat.S_ISREG(info.st_mode):
        return "it is not a regular file"
    if info.st_uid not in owners:
        return f"it belongs to another user (uid {info.st_uid})"
    return ""


def distrust_names(info: os.stat_result) -> str:
    """Why a file that has other names can't be trusted, "" if it can.

    A folder that only we can write protects the files in it, but not under a name in another folder. A second name as
    such is no harm: backup tools make snapshots of hard links, and link() crosses no mount, so a guest names only what
    it has mounted and can write anyway.
    """
    if info.st_nlink > 1 and others_write(info):
        return f"it has another name (hard link), by which other users can write to it (mode {info.st_mode & 0o7777:o})"
    return ""


def check_folders(folders: Iterable[str], is_local: Callable[[str], bool | None]) -> None:
    """Check folders that decide, such as the state root and the palace; one that is missing passes.

    Args:
        is_local: `locality.mounts.is_local`. On a filesystem of another kernel owners and modes may be made up.

    Raises:
        StateRootError: another user owns one, or can write there; with the command that fixes it.
    """
    for path in dict.fromkeys(folders):
        try:
            _check_modes(path)
        except StateRootError:  # noqa: PERF203 - two or three folders
            if is_local(path) is not False:
                raise


def _check_modes(path: str) -> None:
    """Refuse a folder that other users can write to, as sshd and postgres refuse theirs; one that is missing passes.

    Only where modes mean something: a virtual machine's mounts may show any mode.

    Raises:
        StateRootError: with the command that fixes it.
    """
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise StateRootError(f"cannot look at {path}: {exc.strerror or exc}.", hint=f"ls -ld {path}") from exc
    if info.st_uid not in trusted_owners(info):
        raise StateRootError(
            f"{path} belongs to another user (uid {info.st_uid}), who could put anything there.",
            hint=f"sudo chown -R {os.geteuid()} {path}, or run this as its owner",
        )
    if others_write(info):
        hint = f"chmod go-w {path}"
        if info.st_mode & stat.S_ISVTX:  # /tmp and its like
            hint = "move the palace into a folder of its own (mkdir -m 700), and name that with --palace"
        raise StateRootError(f"other users can write to {path} (mode {info.st_mode & 0o7777:o}).", hint=hint)


def others_write(info: os.stat_result) -> bool:
    """Whether anybody but its owner and root may write to a file or folder.

    A group of the owner alone, which many Linux systems give to every user, is nobody else.
    """
    if info.st_mode & 0o002:
        return True
    return bool(info.st_mode & 0o020) and not _own_group(info.st_uid, info.st_gid)


def _own_group(uid: int, gid: int) -> bool:
    """Whether a group has its user's name and no other members: the private group of useradd and adduser."""
    import grp
    import pwd

    try:
        name = pwd.getpwuid(uid).pw_name
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}
