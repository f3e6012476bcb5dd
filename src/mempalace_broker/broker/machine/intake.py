"""What a client sent, piece by piece: one message of a line or of a batch at a time, and what it costs to handle it.

A client gets a share of each turn of the loop, so neither many lines nor one long batch keeps the others waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import INVALID_REQUEST
from ...protocol import jsonrpc as rpc
from ...protocol.framing import LONG, TooLong
from ...protocol.hello import STATUS
from ...protocol.jsonrpc import INITIALIZE, TOOLS_LIST
from ...protocol.long_line import LongLine

if TYPE_CHECKING:
    from collections import deque

    from .session import Session

MAX_BATCH = 10_000
MAX_BATCH_BYTES = 4 << 20
SHARE = 64  # of one client in a turn: so many short messages, or one slice of a long line
_LINE_BYTES = 4 * 1024  # of a line, which cost as much as one short message
_DEAR = {STATUS: 16, TOOLS_LIST: 8, INITIALIZE: 4}  # requests that cost as much as so many others


_NOTHING_YET = rpc.Message(rpc.BLANK)


class Piece(NamedTuple):
    """One message: `raw` is its line, `part` its place in a batch (0: it is not in one), `cost` its part of a SHARE."""

    message: rpc.Message
    raw: bytes = b""
    part: int = 0
    cost: int = 1


def next_piece(session: Session, lines: deque[bytes | TooLong]) -> Piece | None:
    """The next message of a client, or None; what can't be read is a BAD message."""
    if session.batch is not None:
        part, value = next(session.batch, (0, None))
        if part:
            return _element(value, part)
        session.batch = None
    if not lines:
        return None
    line = lines[0]
    if isinstance(line, bytes) and len(line) >= LONG:
        return _slice(session, line, lines)
    return _line(session, lines.popleft())


def has_more(session: Session | None, lines: deque[bytes | TooLong]) -> bool:
    """Whether `next_piece` may find something."""
    return bool(lines) or (session is not None and session.batch is not None)


def _line(session: Session, line: bytes | TooLong) -> Piece:
    session.ordinal += 1
    if isinstance(line, TooLong):
        return Piece(rpc.bad(INVALID_REQUEST, f"a line of more than {line.limit} bytes"))
    return _whole(session, rpc.parse(line), line)


def _slice(session: Session, line: bytes, lines: deque[bytes | TooLong]) -> Piece:
    """Pass a slice of a long line; it stays with `lines` until it is passed as a whole."""
    if session.long is None:
        session.ordinal += 1
        session.long = LongLine(line)
    message = session.long.step()
    if message is None:
        return Piece(_NOTHING_YET, cost=SHARE)
    session.long = None
    lines.popleft()
    if message.kind == rpc.BATCH:
        if len(line) > MAX_BATCH_BYTES:
            return Piece(rpc.bad(INVALID_REQUEST, f"a batch of more than {MAX_BATCH_BYTES} bytes"))
        message = rpc.parse(line)  # with its long texts
    return _whole(session, message, line)


def _whole(session: Session, message: rpc.Message, line: bytes) -> Piece:
    if message.kind == rpc.BATCH:
        if len(message.body) > MAX_BATCH:
            return Piece(rpc.bad(INVALID_REQUEST, f"a batch of more than {MAX_BATCH} elements"))
        session.batch = enumerate(message.body, 1)
    return Piece(message, line, cost=_cost(message) + len(line) // _LINE_BYTES)


def _element(value: Any, part: int) -> Piece:
    message = rpc.classify(value)
    raw = b""
    if message.kind == rpc.REQUEST:
        try:
            raw = rpc.to_bytes(value)
        except RecursionError:  # it could be read, but not be written again
            message = rpc.bad(INVALID_REQUEST, "nested too deeply", message.id)
    return Piece(message, raw, part, _cost(message))


def _cost(message: rpc.Message) -> int:
    return 1 + _DEAR.get(message.method, 0)
