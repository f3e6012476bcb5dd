"""Which boot of which kernel this is. `mp-shim` imports this module: keep it lean."""

from __future__ import annotations

import os
import sys


def boot_id() -> str:
    """What changes with every boot of this kernel, and differs between kernels; "" if not known.

    On macOS this costs a process.
    """
    if sys.platform == "darwin":
        from .procid import ask

        return ask("sysctl", "-n", "kern.bootsessionuuid")
    try:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
