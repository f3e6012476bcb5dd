"""Keeps what a process has in memory (secrets of sessions, the user's texts) to itself, as gpg-agent and ssh-agent do.
`mp-shim` imports this module late: keep it lean.
"""

from __future__ import annotations

import resource
import sys

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Write no core dump, and on Linux let no other process of the user trace this one or read its memory.

    Our own /proc stays readable to us, and /proc/PID/stat, status, cmdline and mountinfo to all; programs that we run
    are not affected.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        _forbid_tracing()


def _forbid_tracing() -> None:
    try:
        import _ctypes  # `ctypes` costs 20 ms
    except ImportError:  # a Python without it, or not CPython
        return

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL
        _restype_ = None

    prctl = Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl"))  # type: ignore[arg-type]  # None: what is loaded
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
