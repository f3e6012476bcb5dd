"""What to do about one watched file, from what was seen of it. Pure: the caller looks, reads, draws, and has the clock.

Time stamps alone do not tell: two saves may fall into one tick of a file system's clock. So the content is read
whatever the stamp says, until it was read once when that tick was over - with looks far apart that is the next one.

A save need not be atomic. Whatever is there is drawn at once, and where that fails nothing is said until a second look
finds the same content: a half-written file does not outlast that.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

TICK_S = 3.0  # the coarsest stamps are FAT's, of 2 s


class Stamp(NamedTuple):
    """What `stat` says of a file's content."""

    mtime_ns: int
    size: int
    inode: int


class Step(Enum):
    """What the caller is to do."""

    NOTHING = "nothing"
    DRAW = "draw"  # then tell `drawn` how it went
    TELL = "tell"  # the trouble is no half-written save: say it
    GONE = "gone"  # say that it is


class Subject:
    """One file.

    Attributes:
        trouble: what the last drawing said, where it failed and that is not told yet; else empty.
    """

    def __init__(self) -> None:
        self.trouble = ""
        self._stamp: Stamp | None = None
        self._changed_at = 0.0
        self._settled = False  # read after the tick of its stamp
        self._digest: bytes | None = None  # of what was last drawn, well or not
        self._good = False
        self._missed = 0  # looks in a row that found no file

    def to_read(self, stamp: Stamp, now: float) -> bool:
        """Whether its content must be read; `stamp` is what it has now, `now` in seconds of any steady clock."""
        if stamp != self._stamp:
            self._stamp, self._changed_at, self._settled = stamp, now, False
        if self._settled:
            return False
        self._settled = now - self._changed_at >= TICK_S
        return True

    def seen(self, digest: bytes, *, picture: bool) -> Step:
        """Its content was read. `picture`: there is one, from this content or an earlier one."""
        self._missed = 0
        if digest != self._digest:
            self._digest = digest
            return Step.DRAW
        return self.unchanged(picture=picture)

    def unchanged(self, *, picture: bool) -> Step:
        """Its content need not be read."""
        self._missed = 0
        if self.trouble:
            return Step.TELL
        return Step.DRAW if self._good and not picture else Step.NOTHING

    def missing(self) -> Step:
        """There is no file. An editor that saves by renaming takes it away for a moment: only a second look counts."""
        self._missed += 1
        if self._missed != 2:
            return Step.NOTHING
        self._stamp, self._digest, self._good, self.trouble = None, None, False, ""
        return Step.GONE

    def drawn(self, trouble: str) -> None:
        """How the drawing went; empty is well."""
        self.trouble = trouble
        self._good = not trouble

    def told(self) -> None:
        """The trouble was said."""
        self.trouble = ""
