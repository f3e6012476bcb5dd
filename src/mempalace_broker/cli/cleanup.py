"""Cleans up after a command that works in a home of its own, however it ends; that takes seconds at most."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STRAGGLER_ROUNDS, STRAGGLER_S = 4, 5.0
_LOOK_S = 0.05


@contextlib.contextmanager
def single_interrupt() -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP ends the command; later ones must not cut its clean-up short."""

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handler(interrupted):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off these signals until the clean-up is done."""
    came: list[int] = []
    with _handler(lambda number, _frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextlib.contextmanager
def _handler(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle these signals this way, except those that are ignored, as SIGHUP is under nohup."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number in _SIGNALS if before[number] != signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


@contextlib.contextmanager
def removed_at_the_end(folder: str) -> Iterator[Path]:
    """Remove this folder in the end, unless it has another name by then; yield its path without links."""
    try:
        yield Path(os.path.realpath(folder))
    finally:
        with uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)


def end_stragglers(home: str) -> None:
    """End whatever has this HOME of ours: a Ctrl-C may fall between the start of a broker and its taking the lock."""
    for _ in range(STRAGGLER_ROUNDS):  # a process may have started another before we ended it
        found = [process for process in psutil.process_iter() if _belongs_to(process, home)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        end = time.monotonic() + STRAGGLER_S
        while any(map(_is_alive, found)) and time.monotonic() < end:
            psutil.wait_procs(found, timeout=_LOOK_S)


def _belongs_to(process: psutil.Process, home: str) -> bool:
    """By its command line, or by its environment, which a broker lets nobody read."""
    with contextlib.suppress(psutil.Error, OSError):
        return any(home in word for word in process.cmdline()) or process.environ().get("HOME") == home
    return False


def _is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; one that has may stay a zombie, where nobody asks for its exit code."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
