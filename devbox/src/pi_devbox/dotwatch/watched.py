"""The state of one watched file: decide what to do from what was seen. Pure: the caller stats, reads, draws, and tells
the time.

Time stamps alone are not enough: two saves may fall into one tick of a file system's clock. So the content is read
whatever the stamp says, until one read happened after that tick. With rare looks that is the very next one.

A save need not be atomic. New content is drawn at once; if that fails, the error is only reported once a look finds the
same content SETTLE_S after it came. A half-written file does not last that long.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

TICK_S = 3.0  # the coarsest stamps are FAT's, of 2 s
SETTLE_S = 0.2  # no half of a save lasts longer


class Stamp(NamedTuple):
    """What `stat` says of a file's content."""

    mtime_ns: int
    size: int
    inode: int


class Action(Enum):
    """What the caller does next."""

    NOTHING = "nothing"
    DRAW = "draw"  # in place of a drawing that is under way; then call `drawn` with the result
    REPORT = "report"  # the error is not from a half-written save: report it
    GONE = "gone"  # report that the file is gone


class WatchedFile:
    """One file.

    Attributes:
        error: the error of the last drawing, until it is reported; empty otherwise.
        due: when a look is the first that may report the error.
    """

    def __init__(self) -> None:
        self.error = ""
        self.due = 0.0
        self._drawing = False
        self._stamp: Stamp | None = None
        self._changed_at = 0.0
        self._settled = False  # its content was read after the tick of its stamp
        self._digest: bytes | None = None  # of the content last drawn, successfully or not
        self._good = False
        self._missed = 0  # looks in a row that found no file

    def to_read(self, stamp: Stamp, now: float) -> bool:
        """Whether the content must be read, given its present `stamp`; `now` is in seconds of any monotonic clock."""
        if stamp != self._stamp:
            self._stamp, self._changed_at, self._settled = stamp, now, False
        if self._settled:
            return False
        self._settled = now - self._changed_at >= TICK_S
        return True

    def seen(self, digest: bytes, now: float, *, picture: bool) -> Action:
        """Take the digest of the content just read. `picture`: one exists, of this content or an earlier one."""
        if digest != self._digest:
            self._missed = 0
            self._digest, self.due = digest, now + SETTLE_S
            return self._draw()
        return self.unchanged(now, picture=picture)

    def unchanged(self, now: float, *, picture: bool) -> Action:
        """Take note that the content need not be read."""
        self._missed = 0
        if self._drawing:
            return Action.NOTHING
        if self.error:
            return Action.REPORT if now >= self.due else Action.NOTHING
        return self._draw() if self._good and not picture else Action.NOTHING

    def _draw(self) -> Action:
        self._drawing, self.error = True, ""
        return Action.DRAW

    def missing(self, now: float) -> Action:
        """Take note that the file is missing. Only a second look counts: an editor may replace it by renaming."""
        self._missed += 1
        self.due = now + SETTLE_S
        if self._missed != 2:
            return Action.NOTHING
        self._stamp, self._digest, self._good, self._drawing, self.error = None, None, False, False, ""
        return Action.GONE

    def drawn(self, error: str) -> None:
        """Take the result of a drawing: its error, or empty."""
        self._drawing, self.error = False, error
        self._good = not error

    def reported(self) -> None:
        """Take note that the error was reported."""
        self.error = ""
