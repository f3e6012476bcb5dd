"""The agent's side of the shim: its bytes become messages, and what is answered here becomes bytes for it.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import INVALID_REQUEST
from ...protocol import jsonrpc as rpc
from ...protocol.framing import LONG, LineReader, TooLong, WriteBuffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...protocol.jsonrpc import Message

MAX_BATCH = 10_000  # elements
TOO_DEEP = "Invalid request: nested too deeply"


class AgentStream:
    """Reads the agent's lines and answers those that can't be understood.

    Attributes:
        out: bytes for the agent; the caller of the machine takes them.
    """

    __slots__ = ("_reader", "out")

    def __init__(self) -> None:
        self.out = WriteBuffer()
        self._reader = LineReader()

    def read(self, data: bytes) -> Iterator[tuple[Message, bytes]]:
        """Take bytes in any cut; yield each message with its line. A batch yields its elements."""
        return self._messages(self._reader.feed(data))

    def end(self) -> Iterator[tuple[Message, bytes]]:
        """The agent sends no more: yield what its last line holds if no newline follows it."""
        return self._messages(self._reader.end())

    def _messages(self, lines: list[bytes | TooLong]) -> Iterator[tuple[Message, bytes]]:
        for line in lines:
            if isinstance(line, TooLong):
                text = f"Invalid request: a line of more than {line.limit} bytes was skipped"
                self.error(None, INVALID_REQUEST, text)
                continue
            message = rpc.parse(line) if len(line) < LONG else _parse_long(line)
            if message.kind == rpc.BATCH:
                yield from self._batch(message.body)
            elif message.kind == rpc.BAD:
                self.error(message.id, message.code, message.text)
            else:
                yield message, line

    def _batch(self, values: list[Any]) -> Iterator[tuple[Message, bytes]]:
        if len(values) > MAX_BATCH:
            self.error(None, INVALID_REQUEST, f"Invalid request: a batch of more than {MAX_BATCH} elements")
            return
        for value in values:
            message = rpc.classify(value)
            if message.kind == rpc.BAD:
                self.error(message.id, message.code, message.text)
                continue
            try:
                line = rpc.to_bytes(value) if message.method else b""
            except RecursionError:
                self.error(message.id, INVALID_REQUEST, TOO_DEEP)
            else:
                yield message, line

    def result(self, id_: object, result: object) -> None:
        """Answer a request of the agent."""
        self.out.put(rpc.result_line(id_, result))

    def error(self, id_: object, code: int, text: str) -> None:
        """Answer a request of the agent with an error."""
        self.out.put(rpc.error_line(id_, code, text))


def _parse_long(line: bytes) -> Message:
    try:
        from ...protocol import long_line  # late: most sessions have none

        return long_line.parse(line)
    except (MemoryError, ImportError):
        return rpc.parse(line)  # which answers, whatever is missing
