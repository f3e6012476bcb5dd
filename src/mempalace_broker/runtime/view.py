"""This process's view of the files. `mp-shim` imports this module once it is connected: keep it lean."""

from __future__ import annotations

import os
import sys

from ..core.view import View


def view_of(palace: str, *, remote: bool = False) -> View:
    """How this process sees files, and the palace directory among them. `remote`: the broker is not on this machine
    as far as we know.
    """
    try:
        info = os.stat(palace)
    except OSError:
        dev = ino = 0
    else:
        dev, ino = info.st_dev, info.st_ino
    if sys.platform == "darwin":
        # one mount table for all, and asking for the boot costs a process: the name stands for it where it matters
        return View(os.uname().nodename if remote else "", "", dev, ino)
    return View(_boot(), _mount_namespace(), dev, ino)


def _boot() -> str:
    from .procid import boot_id

    return boot_id()


def _mount_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""
