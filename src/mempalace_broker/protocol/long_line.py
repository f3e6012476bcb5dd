"""Reads a long line slice by slice, so that a broker can serve its other clients in between.

The C scanner takes a line in one go and holds the interpreter meanwhile: half a second for 60 MB of escapes, many
seconds for as many brackets. What makes an honest line long is a text in it, and nobody but the engine looks into
that. So each slice is checked as it is passed, and long texts are left out; only the rest is parsed at once, and a line
with too much of a rest is refused. `mp-shim` imports this module for lines that are long: keep it lean.
"""

from __future__ import annotations

from ..errors import INVALID_REQUEST, PARSE_ERROR
from . import jsonrpc as rpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jsonrpc import Message

SLICE = 64 * 1024  # bytes
MAX_VALUES = 200_000  # of one message: more than these take too long to parse, whatever their size
MAX_REST = 16 << 20  # bytes
LONG_TEXT = 8 * 1024  # bytes: a name, an id or a path is shorter
_LEFT_OUT = b'"\\u0000' + b"-" * 1024 + b'"'  # stands for a long text, and passes for neither name nor id nor path
_LONGEST_ESCAPE = 6
_BEGINS = (b"{", b"[", b"")
_NO_END = "a text without its end"


class _Bad(Exception):
    """The line can't be read, or holds too much."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class LongLine:
    """One line on its way; `line` is without its newline."""

    __slots__ = ("_at", "_in_text", "_kept", "_line", "_size", "_values")

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._at = 0
        self._in_text = False  # in a long text, that is
        self._kept: list[bytes] = []
        self._size = 0
        self._values = 0

    def step(self) -> Message | None:
        """Pass the next slice; after the last one, return what `rpc.parse` would, but without the long texts."""
        if self._at == 0 and self._line[:SLICE].lstrip(b" \t\r\n")[:1] not in _BEGINS:
            return rpc.parse(self._line[:SLICE])  # not a message, whatever follows
        try:
            self._at += self._pass(self._slice())
        except _Bad as exc:
            start = self._line[:SLICE].decode("utf-8", "replace")
            return rpc.bad(exc.code, str(exc), rpc.salvage_id(start) if exc.code == INVALID_REQUEST else None)
        return None if self._at < len(self._line) else rpc.parse(b"".join(self._kept))

    def _slice(self) -> bytes:
        """The next bytes, not cut within an escape."""
        piece = self._line[self._at : self._at + SLICE]
        if self._at + len(piece) < len(self._line):
            begin = piece.rfind(b"\\", len(piece) - _LONGEST_ESCAPE)
            backslashes = begin + 1 - len(piece[: begin + 1].rstrip(b"\\"))
            if backslashes % 2:  # the last one begins an escape
                return piece[:begin]
        return piece

    def _pass(self, piece: bytes) -> int:
        """Check and keep what the slice holds; return how many bytes of it are done with."""
        parts = _mask_escapes(piece).split(b'"')  # outside of a text and inside, in turn
        at, end = 0, len(piece)
        if self._in_text:
            at = self._check(piece, 0, len(parts.pop(0)))
            self._in_text = not parts
            if not parts and self._at + end == len(self._line):
                raise _Bad(PARSE_ERROR, _NO_END)
        done = end
        if parts and len(parts) % 2 == 0:  # the slice ends within a text
            length = len(parts.pop())
            if self._at + end == len(self._line):
                raise _Bad(PARSE_ERROR, _NO_END)
            end -= length + 1
            self._in_text = length > LONG_TEXT
            done = self._check(piece, end + 1, length) - 1 if self._in_text else end
        self._keep_parts(piece, at, end, parts)
        if self._in_text and parts:
            self._keep(_LEFT_OUT)
        return done

    def _keep_parts(self, piece: bytes, at: int, end: int, parts: list[bytes]) -> None:
        """Keep piece[at:end], whose `parts` begin and end outside of texts, but for the long texts."""
        bare = b"".join(parts[::2])
        self._values += bare.count(b",") + bare.count(b"[") + bare.count(b"{")  # one before each value
        if self._values > MAX_VALUES:
            raise _Bad(INVALID_REQUEST, f"more than {MAX_VALUES} values in one message")
        begin = at
        if max(map(len, parts[1::2]), default=0) > LONG_TEXT:
            for number, part in enumerate(parts):
                if number % 2 and len(part) > LONG_TEXT:
                    self._keep(piece[begin : at - 1] + _LEFT_OUT)
                    begin = self._check(piece, at, len(part))
                at += len(part) + 1
        self._keep(piece[begin:end])

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_REST:
            raise _Bad(INVALID_REQUEST, f"more than {MAX_REST} bytes beside its long texts in one message")
        self._kept.append(data)

    def _check(self, piece: bytes, at: int, length: int) -> int:
        """Check a part of a long text; return the index behind it and the quote that follows."""
        text = piece[at : at + length].decode("utf-8", "replace")
        try:
            rpc.scan(f'"{text}"', 0)
        except (ValueError, SystemError) as exc:  # 3.11's scanner may lack its own exception
            raise _Bad(PARSE_ERROR, "an invalid escape or a control character in a text") from exc
        return at + length + 1


def _mask_escapes(piece: bytes) -> bytes:
    """The same number of bytes, in which every quote begins or ends a text."""
    return piece.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in piece else piece


def parse(line: bytes) -> Message:
    """As `rpc.parse`, with all texts, where what `LongLine` says of it is not an error."""
    long = LongLine(line)
    while (message := long.step()) is None:
        pass
    return message if message.kind == rpc.BAD else rpc.parse(line)
