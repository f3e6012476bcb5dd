"""Tells the broker how far a mine is: which file it works on, of how many.

mempalace itself counts the files, by the scanner of the mine's mode, and tells the boundaries between them. A version
without such boundaries has no progress to show.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from ..protocol.engine_frames import PROGRESS, Frame

if TYPE_CHECKING:
    from .adapter import Mempalace
    from .call import Call

EVERY_S = 0.5  # a file that is unchanged since the last mine takes a fraction of a millisecond
_MINE = "mempalace_mine"
_SCANNERS = {
    "projects": ("miner", "scan_project"),
    "convos": ("convo_miner", "scan_convos"),
    "extract": ("format_miner", "scan_formats"),
}


class MineProgress:
    """The progress of one mine.

    Attributes:
        files: how many there are, 0 while that isn't known. file: the one that it works on, from 1.
    """

    def __init__(self, n: int, files: int, send: Callable[[Frame], object]) -> None:
        self.files = files
        self.file = 0
        self._n = n
        self._send = send
        self._told_at = 0.0

    def next_file(self) -> None:
        """Note that the next file begins; tell the broker, unless it was told a moment ago."""
        self.file += 1
        now = time.monotonic()
        if self.file <= self.files and (self.file == 1 or now - self._told_at >= EVERY_S):
            self._told_at = now
            self._send(Frame(PROGRESS, self._n, tag=f"{self.file}/{self.files}"))


@contextlib.contextmanager
def watch_mine(
    mempalace: Mempalace, call: Call, between_files: Callable[[], bool], send: Callable[[Frame], object]
) -> Iterator[None]:
    """Run a call; if it is a mine, call `between_files` before each of its files, and report how far it is.

    Call it on the thread that runs the call.
    """
    if call.tool != _MINE:
        yield
        return
    given = call.arguments.get("files")  # a job may have scanned ahead
    progress = MineProgress(call.frame.n, len(given) if isinstance(given, list) else 0, send)

    def next_file() -> bool:
        others_ran = between_files()
        progress.next_file()
        return others_ran

    hook = mempalace.mine_yield_hook(next_file)
    if hook is None:
        yield
        return
    mempalace.between_texts = between_files
    try:
        with hook, _counted(mempalace, call.arguments.get("mode"), progress):
            yield
    finally:
        mempalace.between_texts = None


@contextlib.contextmanager
def _counted(mempalace: Mempalace, mode: Any, progress: MineProgress) -> Iterator[None]:
    """Have the scanner of that mode tell how many files it finds, in this block."""
    module_name, name = _SCANNERS.get(mode if isinstance(mode, str) else "projects", ("", ""))
    module = mempalace.module(module_name) if module_name else None
    scan = getattr(module, name, None)
    if scan is None:
        yield
        return

    def counted(*args: Any, **named: Any) -> Any:
        found = scan(*args, **named)
        with contextlib.suppress(TypeError):  # no list any more: then nothing is reported
            progress.files = len(found)
        return found

    setattr(module, name, counted)
    try:
        yield
    finally:
        setattr(module, name, scan)
