"""What the kernel tells: which boot of it this is, small files of /proc, short commands.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os
import sys


def boot_id() -> str:
    """What changes with every boot of this kernel, and differs between kernels; "" if not known.

    On macOS this costs a process.
    """
    if sys.platform == "darwin":
        return ask("sysctl", "-n", "kern.bootsessionuuid")
    return read_small("/proc/sys/kernel/random/boot_id")


def read_small(path: str) -> str:
    """A small file of /proc without the white space around it, "" on any failure."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


def ask(*argv: str) -> str:
    """One short command's output, "" on any failure."""
    import subprocess

    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=5,
            check=False,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
