"""Start a command without a traceback if Ctrl-C comes while its modules are imported."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` imports enum, and that takes its time


def start(module: str, name: str, prog: str) -> int:
    """Import a command, run it, and return its exit code.

    Before and after its run, when no code of ours could catch a KeyboardInterrupt, Ctrl-C ends the process by the
    signal itself. A SIGINT that is ignored stays ignored (nohup, `&` in a script).
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    import importlib

    command = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    from .outcome import guarded

    code = guarded(command, prog, interruptible=ours)
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return code
