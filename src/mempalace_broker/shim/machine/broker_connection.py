"""The shim's end of one connection after another to a broker: hello, numbered lines, and events from what it sends.

After hello's answer no line is read until the caller says whether this is the broker of our palace (`accept`,
`reject`): the lines that came with it wait here.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import NOT_EXECUTED
from ...protocol import jsonrpc as rpc
from ...protocol.framing import LineReader, TooLong, WriteBuffer
from ...protocol.hello import BINDS_SESSIONS, HELLO, OUTCOMES, hello_request
from ...protocol.jsonrpc import CANCELLED, INITIALIZE
from .pending_requests import OUR_IDS, OUR_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from ...protocol.palace import FileView, PalaceIdentity
    from .pending_requests import PendingRequest

MAX_NOISE = 64 * 1024  # bytes before hello's answer: over ssh a shell's profile may print first
MAX_ANSWER = 320 * 1024 * 1024  # bytes of one answer: more than the engine's largest
MAX_EPOCHS = 64  # connections whose broker is remembered
REPLAY = OUR_IDS + INITIALIZE
_NO_EPOCH = -1  # earlier than every broker's journal: what is not in it counts as unknown


class Answer:
    """A response: `line` answers the request that travels under `key`."""

    __slots__ = ("key", "line")

    def __init__(self, key: str, line: bytes) -> None:
        self.key = key
        self.line = line


class Notification:
    """A notification for the agent, as a line."""

    __slots__ = ("line",)

    def __init__(self, line: bytes) -> None:
        self.line = line


class Welcome:
    """Hello was accepted; `result` is what the broker says of itself."""

    __slots__ = ("result",)

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result


class Refusal:
    """Hello was refused, with a JSON-RPC error."""

    __slots__ = ("code", "text")

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text


class Outcomes:
    """What became of the writes of a lost `connection`: {ordinal as text: {"state", "response"}}."""

    __slots__ = ("connection", "outcomes")

    def __init__(self, connection: int, outcomes: Mapping[str, Any]) -> None:
        self.connection = connection
        self.outcomes = outcomes


if TYPE_CHECKING:
    Event = Answer | Notification | Welcome | Refusal | Outcomes


class BrokerConnection:
    """The connection that is open now, if any, and what is known of earlier ones.

    Args:
        session, secret: 32 hex digits each, new for every shim. client, pid: who we are, for `status`.
        home: where mempalace's own commands look for the broker.

    Attributes:
        to_broker: bytes to be written; the caller takes them.
        number: of the connection, from 1. up: whether it is open. established: whether hello was accepted on it.
        verifying: whether the broker's welcome waits for `accept` or `reject`.
        files: what the broker told of its own view of the files, {} where it has ours.
        asked: the connection whose writes are being asked for, 0 for none.
        broken: why the connection must be closed, "" if it needn't.
    """

    def __init__(
        self, session: str, secret: str, client: str, pid: int, *, read_only: bool = False, home: str = ""
    ) -> None:
        self._session = session
        self._secret = secret
        self._read_only = read_only
        self._home = home
        self._bound = False  # this broker names our writes by the secret
        self._client = client
        self._pid = pid
        self.files: dict[str, Any] = {}
        self.to_broker = WriteBuffer()
        self.number = self._ordinal = self.asked = 0
        self.up = self.established = self.verifying = False
        self.broken = ""
        self._reader = LineReader(MAX_ANSWER)
        self._held: list[bytes | TooLong] = []  # lines behind a welcome that is being verified
        self._noise = 0
        self._welcome: dict[str, Any] = {}
        self._epochs: dict[int, int] = {}  # the lease of the broker that a connection led to

    def opened(self, identity: PalaceIdentity, view: FileView | None) -> None:
        """A connection is open: send hello as its first line."""
        self.number += 1
        self._ordinal = self.asked = 0
        self.up = True
        self._reader = LineReader(MAX_ANSWER)
        self._noise = 0
        hello = hello_request(
            session=self._session,
            secret=self._secret,
            connection=self.number,
            identity=identity,
            client=self._client,
            pid=self._pid,
            view=view,
            read_only=self._read_only,
            home=self._home,
        )
        self.send(rpc.to_bytes(hello))

    def closed(self) -> None:
        """The connection is gone, with everything that was not written yet."""
        self.up = self.established = self.verifying = False
        self.broken = ""
        self.asked = 0
        self._held = []
        self.to_broker.clear()

    def accept(self) -> dict[str, Any]:
        """The broker is the one of our palace: `read` goes on. Return its welcome."""
        self.verifying, self.established = False, True
        return self._welcome

    def reject(self, reason: str) -> None:
        """The broker is another palace's."""
        self.verifying, self.broken = False, reason

    def send(self, line: bytes) -> int:
        """Queue a line without its newline; return its ordinal on this connection."""
        self._ordinal += 1
        self.to_broker.put_line(line)
        return self._ordinal

    def replay(self, initialize: bytes) -> None:
        """Send the agent's `initialize` again under an id of ours; nobody gets its answer."""
        self.send(rpc.to_bytes({**rpc.load(initialize), "id": REPLAY}))

    def cancel(self, request: PendingRequest) -> None:
        """Tell the broker that nobody waits for this answer any more."""
        id_ = request.id if request.wire_key == request.key else request.wire_key[1:]
        self.send(rpc.to_bytes({"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": id_}}))

    def ask_outcomes(self, lost: Iterable[PendingRequest], now: float) -> None:
        """Ask what became of the lost writes that went out on the same connection as the first of them."""
        writes = list(lost)
        self.asked = writes[0].connection
        epoch = self._epochs.get(self.asked) if self._bound else _NO_EPOCH
        same = [request for request in writes if request.connection == self.asked]
        params: dict[str, Any] = {
            "connection": self.asked,
            "lines": [request.ordinal for request in same],
            "age_s": now - min(request.sent_at for request in same),
        }
        if epoch is not None:
            params["epoch"] = epoch
        self.send(rpc.to_bytes({"jsonrpc": "2.0", "id": OUTCOMES, "method": OUTCOMES, "params": params}))

    def read(self, data: bytes = b"") -> Iterator[Event]:
        """Take bytes of the broker in any cut; yield events until the connection is broken or must be verified."""
        lines = [*self._held, *self._reader.feed(data)] if self._held else self._reader.feed(data)
        self._held = []
        for index, line in enumerate(lines):
            if self.broken:
                return
            if self.verifying:
                self._held = lines[index:]
                return
            if isinstance(line, TooLong):
                self.broken = f"the broker sent a line of more than {line.limit} bytes"
                return
            found = rpc.find_id(line)
            key = rpc.key_of(found[0]) if found else ""
            if key and not key.startswith(OUR_KEYS):
                yield Answer(key, line)  # nearly every line; it is never parsed
            else:
                yield from self._parse(line)

    def _parse(self, line: bytes) -> Iterator[Event]:
        message = rpc.parse(line)
        if message.kind == rpc.RESPONSE and message.id == HELLO:
            yield self._hello_answered(message.body)
        elif message.kind == rpc.RESPONSE and message.id is None and not self.established:
            yield self._hello_answered(message.body)  # refused before hello was read
        elif message.kind == rpc.RESPONSE and message.id == OUTCOMES:
            asked, self.asked = self.asked, 0
            result = message.body.get("result")
            outcomes = result.get("outcomes") if isinstance(result, dict) else None
            yield Outcomes(asked, outcomes if isinstance(outcomes, dict) else {})
        elif message.kind == rpc.RESPONSE and message.key and message.id != REPLAY:
            yield Answer(message.key, line)
        elif message.kind == rpc.NOTIFICATION and not message.method.startswith(OUR_IDS):
            yield Notification(line)
        elif message.kind == rpc.BAD:
            self._noise += len(line) + 1
            if self.established or self._noise > MAX_NOISE:
                self.broken = "the broker sent a line that is not JSON-RPC"

    def _hello_answered(self, body: dict[str, Any]) -> Event:
        result, error = body.get("result"), body.get("error")
        if isinstance(result, dict):
            self.verifying, self._welcome = True, result
            self._learn(result)
            return Welcome(result)
        self.broken = "hello was refused"
        told = error if isinstance(error, dict) else {}
        code = told.get("code")
        text = str(told.get("message") or "the broker refused us.")
        return Refusal(code if isinstance(code, int) else NOT_EXECUTED, text)

    def _learn(self, welcome: Mapping[str, Any]) -> None:
        files, lease, capabilities = (welcome.get(name) for name in ("files", "lease", "capabilities"))
        self.files = files if isinstance(files, dict) else {}
        self._bound = isinstance(capabilities, list) and BINDS_SESSIONS in capabilities
        epoch = lease.get("epoch") if isinstance(lease, dict) else None
        if isinstance(epoch, int) or not self._bound:
            self._epochs[self.number] = epoch if isinstance(epoch, int) and self._bound else _NO_EPOCH
            self._epochs.pop(self.number - MAX_EPOCHS, None)
