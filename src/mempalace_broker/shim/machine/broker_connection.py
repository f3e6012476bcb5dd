"""The shim's end of one connection after another to a broker: hello, counted lines, and what the broker says.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import NOT_EXECUTED
from ...protocol import jsonrpc as rpc
from ...protocol.framing import LineReader, TooLong
from ...protocol.hello import HELLO, OUTCOMES, hello_request
from ...protocol.mcp import CANCELLED, INITIALIZE
from ...protocol.write_buffer import WriteBuffer
from .pending_requests import OWN, OWN_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ...protocol.palace import FileView, PalaceIdentity
    from .pending_request import PendingRequest

    Event = tuple[str, Any, Any]

MAX_NOISE = 64 * 1024  # bytes before hello's answer: over ssh a shell's profile may print first
MAX_ANSWER = 320 * 1024 * 1024  # bytes of one answer: more than the engine's largest
MAX_EPOCHS = 64  # connections whose broker is remembered
REPLAY = OWN + INITIALIZE
INITIALIZED_LINE = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'

# events: (what, ...)
ANSWER = "answer"  # key on the connection, line
NOTE = "note"  # a notification for the agent: None, line
WELCOME = "welcome"  # hello's result: None, dict
REFUSED = "refused"  # hello's error: code, text
FATES = "fates"  # connection asked for, {ordinal as text: {"state", "response"}}


class BrokerConnection:
    """See the module.

    Attributes:
        identity: the palace this shim was configured for, and `view` how it sees files; to be set before `opened`.
        files: what the broker told of its own view of the files, {} where it has ours.
        to_broker: bytes to be written; the caller takes them.
        number: of the connection, from 1. up: whether it is open. established: whether hello was accepted on it.
        asked: the connection whose writes are being asked for, 0 none.
        broken: why the connection must be closed, "" if it needn't.
    """

    __slots__ = (
        "_epochs",
        "_names",
        "_noise",
        "_ordinal",
        "_reader",
        "asked",
        "broken",
        "established",
        "files",
        "identity",
        "number",
        "to_broker",
        "up",
        "view",
    )

    def __init__(self, session: str, client: str, pid: int) -> None:
        self.identity: PalaceIdentity | None = None
        self.view: FileView | None = None
        self.files: dict[str, Any] = {}
        self.to_broker = WriteBuffer()
        self.number = self._ordinal = self.asked = 0
        self.up = self.established = False
        self.broken = ""
        self._names = (session, client, pid)
        self._reader = LineReader(MAX_ANSWER)
        self._noise = 0
        self._epochs: dict[int, int] = {}  # which generation of brokers a connection led to

    def opened(self) -> None:
        """A connection is open: hello is its first line."""
        assert self.identity is not None, "no palace, no connection"
        self.number += 1
        self._ordinal = self.asked = 0
        self.up = True
        self._reader = LineReader(MAX_ANSWER)
        self._noise = 0
        session, client, pid = self._names
        hello = hello_request(
            session=session, connection=self.number, identity=self.identity, client=client, pid=pid, view=self.view
        )
        self.send(rpc.to_bytes(hello))

    def closed(self) -> None:
        """It is gone, with all that was not yet written."""
        self.up = self.established = False
        self.broken = ""
        self.asked = 0
        self.to_broker.clear()

    def send(self, line: bytes) -> int:
        """Queue a line without its newline; return its ordinal on this connection."""
        self._ordinal += 1
        self.to_broker.put_line(line)
        return self._ordinal

    def replay(self, initialize: bytes) -> None:
        """Send the agent's `initialize` again under an id of ours: its answer is for nobody."""
        self.send(rpc.to_bytes({**rpc.load(initialize), "id": REPLAY}))

    def cancel(self, call: PendingRequest) -> None:
        """Tell the broker that nobody waits for the answer to this call any more."""
        id_ = call.id if call.wire == call.key else call.wire[1:]
        self.send(rpc.to_bytes({"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": id_}}))

    def ask(self, calls: Iterable[PendingRequest], now: float) -> None:
        """Ask what became of the writes that went out on the connection of the first of them."""
        lost = list(calls)
        self.asked = lost[0].connection
        epoch = self._epochs.get(self.asked)
        same = [call for call in lost if call.connection == self.asked]
        params: dict[str, Any] = {
            "connection": self.asked,
            "lines": [call.ordinal for call in same],
            "age_s": now - min(call.sent_at for call in same),
        }
        if epoch is not None:
            params["epoch"] = epoch
        self.send(rpc.to_bytes({"jsonrpc": "2.0", "id": OUTCOMES, "method": OUTCOMES, "params": params}))

    def read(self, data: bytes) -> Iterator[Event]:
        """Bytes of the broker, in any cut; what they say, until the connection is broken."""
        for line in self._reader.feed(data):
            if self.broken:
                return
            if isinstance(line, TooLong):
                self.broken = f"the broker sent a line of more than {line.limit} bytes"
                return
            found = rpc.find_id(line)
            key = rpc.key_of(found[0]) if found else ""
            if key and not key.startswith(OWN_KEYS):
                yield ANSWER, key, line  # what nearly every line is: never parsed
            else:
                yield from self._other(line)

    def _other(self, line: bytes) -> Iterator[Event]:
        message = rpc.parse(line)
        if message.kind == rpc.RESPONSE and message.id == HELLO:
            yield self._hello(message.body)
        elif message.kind == rpc.RESPONSE and message.id == OUTCOMES:
            asked, self.asked = self.asked, 0
            result = message.body.get("result")
            fates = result.get("outcomes") if isinstance(result, dict) else None
            yield FATES, asked, fates if isinstance(fates, dict) else {}
        elif message.kind == rpc.RESPONSE and message.key and message.id != REPLAY:
            yield ANSWER, message.key, line
        elif message.kind == rpc.NOTIFICATION and not message.method.startswith(OWN):
            yield NOTE, None, line
        elif message.kind == rpc.BAD:
            self._noise += len(line) + 1
            if self.established or self._noise > MAX_NOISE:
                self.broken = "the broker sent something that is no JSON-RPC"

    def _hello(self, body: dict[str, Any]) -> Event:
        result, error = body.get("result"), body.get("error")
        if isinstance(result, dict):
            self.established = True
            files = result.get("files")
            self.files = files if isinstance(files, dict) else {}
            lease = result.get("lease")
            epoch = lease.get("epoch") if isinstance(lease, dict) else None
            if isinstance(epoch, int):
                self._epochs[self.number] = epoch
                self._epochs.pop(self.number - MAX_EPOCHS, None)
            return WELCOME, None, result
        self.broken = "hello was refused"
        told = error if isinstance(error, dict) else {}
        code = told.get("code")
        text = str(told.get("message") or "the broker refused us.")
        return REFUSED, code if isinstance(code, int) else NOT_EXECUTED, text
