"""Bytes on their way out, kept as the pieces they came in. `mp-shim` imports this module: keep it lean."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
else:
    try:
        from _collections import deque  # without the package around it, 2 ms of a shim's start
    except ImportError:  # not CPython
        from collections import deque

_SMALL = 64 * 1024  # pieces are joined up to this size: one system call for many short lines


class WriteBuffer:
    """A queue of bytes. `size`: bytes not yet taken."""

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
        """What to write next; b"" when empty. Stays in the queue until `advance`."""
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
        """Forget everything."""
        self._pieces.clear()
        self.size = 0
