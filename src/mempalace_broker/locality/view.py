"""This process's view of the files. `mp-shim` imports this module once it is connected: keep it lean."""

from __future__ import annotations

import os

from ..protocol.palace import FileView
from ..system import kernel


def view_of(palace: str, *, remote: bool = False) -> FileView:
    """How this process sees files, and the palace directory among them.

    Args:
        remote: the broker is reached over ssh or TCP, where none of these facts can be compared.
    """
    if remote:
        return FileView("elsewhere")
    try:
        info = os.stat(palace)
    except OSError:
        dev = ino = 0
    else:
        dev, ino = info.st_dev, info.st_ino
    if kernel.MACOS:
        return FileView("", "", dev, ino)  # one mount table for all, and asking for the boot would cost a process
    return FileView(kernel.boot_id(), _mount_namespace(), dev, ino)


def _mount_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""
