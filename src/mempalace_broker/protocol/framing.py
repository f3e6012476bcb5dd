"""Newline-delimited messages: bytes in any cut become lines (LineReader), lines become bytes to write (WriteBuffer).

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
else:
    try:
        from _collections import deque  # without the package around it, 2 ms of a shim's start
    except ImportError:  # not CPython
        from collections import deque

MAX_LINE = 64 * 1024 * 1024  # bytes of one message without its newline
LONG = 64 * 1024  # bytes of a line that is read in slices, see long_line
_SMALL = 64 * 1024  # pieces are joined up to this size, so that many short lines take one system call


class TooLong:
    """Marks an oversized line. It is reported as soon as it passes the limit; the rest is skipped unread."""

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __eq__(self, other: object) -> bool:
        """Equal when the limit is."""
        return isinstance(other, TooLong) and other.limit == self.limit

    def __hash__(self) -> int:
        """Hash of the limit."""
        return hash(self.limit)

    def __repr__(self) -> str:
        """For logs and tests."""
        return f"TooLong({self.limit})"


class LineReader:
    """Splits a byte stream at newlines. Memory: at most `limit` bytes beyond the piece that is being fed.

    Args:
        limit: longest line accepted, in bytes without its newline.
    """

    __slots__ = ("_held", "_parts", "_skipping", "limit")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self.limit = limit
        self._parts: list[bytes] = []  # pieces of the unfinished line: joined once, so a long line costs O(n)
        self._held = 0
        self._skipping = False

    @property
    def held(self) -> int:
        """Bytes of the unfinished line."""
        return self._held

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Add bytes; return the lines they complete, without their newlines, in order."""
        pieces: list[bytes] = data.split(b"\n")
        tail = pieces.pop()
        out: list[bytes | TooLong] = []
        for piece in pieces:
            if self._skipping:
                self._skipping = False
                continue
            if self._held + len(piece) > self.limit:
                out.append(TooLong(self.limit))
            elif self._held:
                self._parts.append(piece)
                out.append(b"".join(self._parts))
            else:
                out.append(piece)
            self._drop()
        if tail and not self._skipping:
            self._hold(tail, out)
        return out

    def end(self) -> list[bytes | TooLong]:
        """The stream has ended: return its last line if no newline follows it. A JSON object that was cut is not one,
        so no half of a message can be taken for another.
        """
        return self.feed(b"\n") if self._held else []

    def _hold(self, tail: bytes, out: list[bytes | TooLong]) -> None:
        if self._held + len(tail) > self.limit:
            self._drop()
            self._skipping = True
            out.append(TooLong(self.limit))
            return
        self._parts.append(tail)
        self._held += len(tail)

    def _drop(self) -> None:
        self._parts.clear()
        self._held = 0


class WriteBuffer:
    """Bytes on their way out, kept in the pieces that they came in. `size`: bytes not yet taken."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0

    def put(self, data: bytes) -> None:
        """Add bytes that end with a newline already."""
        self._pieces.append(data)
        self.size += len(data)

    def put_line(self, line: bytes) -> None:
        """Add a line without its newline; a long one is not copied for it."""
        if len(line) < _SMALL:
            self.put(line + b"\n")
        else:
            self.put(line)
            self.put(b"\n")

    def head(self) -> bytes | memoryview:
        """The bytes to write next, b"" when empty; they stay in the queue until `advance`."""
        pieces = self._pieces
        if not pieces:
            return b""
        if len(pieces) > 1 and len(pieces[0]) < _SMALL:
            joined = [pieces.popleft()]
            length = len(joined[0])
            while pieces and length + len(pieces[0]) <= _SMALL:
                joined.append(pieces.popleft())
                length += len(joined[-1])
            pieces.appendleft(b"".join(joined))
        return pieces[0]

    def advance(self, count: int) -> None:
        """The first `count` bytes of `head` were written."""
        if not count:
            return
        self.size -= count
        first = self._pieces[0]
        if count == len(first):
            self._pieces.popleft()
        else:
            self._pieces[0] = memoryview(first)[count:]

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self.size = 0
