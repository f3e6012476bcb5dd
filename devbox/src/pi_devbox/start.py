"""Start a command without a traceback if Ctrl-C comes while its modules are imported."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` imports enum, and that takes its time
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def start(module: str, name: str, prog: str) -> int:
    """Import a command, run it, and return its exit code.

    Before and after its run, when no code of ours could catch a KeyboardInterrupt, Ctrl-C ends the process at once and
    with the same exit code. A SIGINT that is ignored stays ignored (nohup).
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _exit_now)
    import importlib

    command = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    from .outcome import guarded

    code = guarded(command, prog, interruptible=ours)
    if ours:
        signal.signal(signal.SIGINT, _exit_now)
    return code


def _exit_now(_number: int, _frame: object) -> NoReturn:
    os._exit(130)
