"""Which files a guest's call may name: decided here, by what the broker sees for itself.

A guest may name what both sides share anyway:

1. what lies in a folder that the user named in the setting `guest_folders`
2. under one kernel: what the guest's process has mounted as well, by its mount table and ours
3. else: a folder in which it just made a file of the name that we told it, which proves that it can write there

Links are resolved first, here, so the engine gets a real path. The engine stays below it (engine/confinement).
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from ..locality.machine.path_map import same_device_name, under
from ..locality.mounts import mount_table
from ..protocol.hello import PROOF_PREFIX
from ..protocol.text import printable
from .peer import has_own_mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..system.unix_socket import PeerProcess

_NONCE_BYTES = 16
_MAX_TABLE = 4 << 20


class NotShared(Exception):
    """A guest may not name this path; the text says why, and the hint."""


def new_nonce(peer: PeerProcess) -> str:
    """A new name for a guest to prove its folders with; "" where its mounts tell as much."""
    return "" if has_own_mounts(peer) and _read_mounts(peer, 1) else secrets.token_hex(_NONCE_BYTES)


class GuestPaths:
    """Judges paths of guests.

    Args:
        folders: that every guest may name, by the setting `guest_folders`.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = folders

    def real(self, peer: PeerProcess, nonce: str, path: str) -> str:
        """The real path of what the guest names. Blocks: run it on a thread.

        Args:
            peer: the guest's process. nonce: that of its connection, as `new_nonce` made it.

        Raises:
            NotShared: the guest may not name that, or nothing is there.
        """
        real = os.path.realpath(path)
        if self._is_named(real) or _is_mounted(real, peer) or _is_proven(nonce, real):
            return real
        raise NotShared(
            f"{printable(path, 200)} is not a folder that the broker's machine shares with you, as far as the broker "
            "can tell. Hint: use a folder that is mounted on both sides and that you can write to; or let the owner of "
            "the memory name it on the broker's machine, in guest_folders under [broker] in config.toml."
        )

    def look_up(self, peer: PeerProcess, nonce: str, paths: Sequence[str]) -> tuple[dict[str, str], str]:
        """Return the real paths of those that a guest names, and why it may not name one of them, or "". Blocks."""
        try:
            return {path: self.real(peer, nonce, path) for path in paths}, ""
        except NotShared as exc:
            return {}, str(exc)
        except (OSError, ValueError) as exc:
            return {}, f"that path can't be looked up: {exc}"

    def _is_named(self, real: str) -> bool:
        return any(under(real, os.path.realpath(folder)) is not None for folder in self._folders)


def _is_mounted(real: str, peer: PeerProcess) -> bool:
    """Whether the process of a container has mounted what lies there, too."""
    if not has_own_mounts(peer):
        return False
    theirs = mount_table(_read_mounts(peer, _MAX_TABLE))
    return same_device_name(real, mount_table(), theirs) is not None


def _read_mounts(peer: PeerProcess, limit: int) -> str:
    """The first characters of the mount table of the peer's process; "" if it can't be read, or has ended."""
    try:
        with open(f"/proc/{peer.pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            table = file.read(limit)
    except OSError:
        return ""
    return table if peer.is_alive() else ""


def _is_proven(nonce: str, real: str) -> bool:
    """Whether the guest's file is in that folder, or beside that file; it is removed."""
    if not nonce:
        return False
    name = PROOF_PREFIX + nonce
    for folder in (real, os.path.dirname(real)):
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=fd)
                return folder == real or stat.S_ISREG(os.lstat(real).st_mode)
        except OSError:
            continue
        finally:
            os.close(fd)
    return False
