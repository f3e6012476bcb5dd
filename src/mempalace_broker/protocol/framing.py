"""Bytes in, lines out: newline-delimited messages of any cut, with a bound on memory.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

MAX_LINE = 64 * 1024 * 1024  # bytes of one message without its newline


class TooLong:
    """A line beyond the limit stood here. Told as soon as the limit is passed; the rest is skipped unread."""

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
        """Bytes of the unfinished line. At the end of the stream: half a message, never to be executed."""
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
