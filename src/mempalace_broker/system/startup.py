"""The first things that a program of ours does, before it imports what costs time. `mp-shim` imports this module: keep
it lean.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_DUMPABLE = 4

try:
    import _signal  # type: ignore[import-not-found]  # no stub; `signal` imports enum
except ImportError:  # not CPython
    import signal as _signal

HANGUP, INTERRUPT, TERMINATE = _signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM


def _exit_now(number: int, _frame: Any) -> None:
    os._exit(128 + number)


def exit_on(*numbers: int) -> None:
    """Exit at once with 128+n, as a shell reports it, on these signals: without a traceback, wherever the program is.

    A signal that is ignored stays ignored (nohup).
    """
    for number in numbers:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _exit_now)


def interrupts_raise() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, for a command that has to clean up; only if `exit_on` took it."""
    if _signal.getsignal(INTERRUPT) is _exit_now:
        _signal.signal(INTERRUPT, _signal.default_int_handler)


def occupy_standard_descriptors() -> None:
    """Open the missing ones of stdin, stdout and stderr, so that no socket of ours gets such a number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def use_utf8() -> None:
    """Where the locale says anything but UTF-8, replace this program by itself in Python's UTF-8 mode.

    A palace's path is bytes to the kernel and text in our files; every process must read the same text out of them,
    whatever the locale of the agent that started it. Output keeps the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    try:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    except OSError:
        return  # it goes on as it is: most paths are ASCII


def keep_memory_private() -> None:
    """Write no core dump, and on Linux let no other process of the user trace this one or read its memory.

    Our own /proc stays readable to us, and /proc/PID/stat, status, cmdline and mountinfo to all. Programs that we run
    may be traced, and write no core dump either.
    """
    import resource

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
