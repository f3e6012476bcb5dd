"""The shim's table of calls: who is owed an answer, under which id it travels, what was answered too early.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...protocol import jsonrpc as rpc
from .pending_request import ASKING, GONE, SENT, PendingRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...protocol.jsonrpc import Message

MAX_LOOSE = 1000  # places kept for late answers
OWN = "broker/"  # ids that begin so are ours on the connection
OWN_KEYS = rpc.key_of(OWN)


class PendingRequests:
    """Calls by the key that they have on the connection, oldest first.

    Attributes:
        live: calls that are owed an answer. held: bytes of the lines kept.
        asking: writes whose fate on a lost connection is not known yet.
    """

    __slots__ = ("_aliases", "_calls", "_loose", "asking", "held", "live")

    def __init__(self) -> None:
        self._calls: dict[str, PendingRequest] = {}
        self._aliases = 0
        self._loose: dict[str, PendingRequest] = {}  # owed nothing, but the broker may still answer
        self.asking: dict[str, PendingRequest] = {}
        self.live = 0
        self.held = 0

    def __len__(self) -> int:
        """Entries, those included that are owed nothing any more."""
        return len(self._calls)

    def __iter__(self) -> Iterator[PendingRequest]:
        """All entries, oldest first; the table may change meanwhile."""
        return iter(list(self._calls.values()))

    def get(self, wire: str) -> PendingRequest | None:
        """The entry with this key on the connection."""
        return self._calls.get(wire)

    def find(self, key: str) -> PendingRequest | None:
        """The oldest call that the agent knows by this id and is still owed an answer for."""
        named = self._calls.get(key)
        candidates = list(self._calls.values()) if self._aliases else []
        for call in [named, *candidates] if named else candidates:
            if call.key == key and call.owed:
                return call
        return None

    def add(self, call: PendingRequest, message: Message) -> None:
        """A new call. If its id is taken, it travels under another one: else two answers could be mixed up."""
        if call.key in self._calls or call.key.startswith(OWN_KEYS):
            self._aliases += 1
            alias = f"{OWN}{self._aliases}"
            call.wire = rpc.key_of(alias)
            call.line = rpc.to_bytes({**message.body, "id": alias})
        self._calls[call.wire] = call
        self.live += 1
        self.held += len(call.line)

    def ask(self, call: PendingRequest) -> None:
        """The connection that carried this write is lost."""
        call.state = ASKING
        self.asking[call.wire] = call

    def excuse(self, call: PendingRequest) -> None:
        """The agent does not want its answer any more; if one comes it may have it."""
        self._settle(call)
        call.cancelled = True
        self._loosen(call)

    def done(self, call: PendingRequest) -> None:
        """Answered here. If the broker may answer too, its place is kept, so that nobody else gets that answer."""
        if call.state != SENT:
            self.forget(call)
            return
        self._settle(call)
        call.state = GONE
        self._loosen(call)

    def forget(self, call: PendingRequest) -> None:
        """Out of the table."""
        self._settle(call)
        self.asking.pop(call.wire, None)
        self._loose.pop(call.wire, None)
        self._calls.pop(call.wire, None)
        call.state = GONE  # whoever still goes through a copy of the table has nothing to do with it

    def _settle(self, call: PendingRequest) -> None:
        if call.owed:
            self.live -= 1
            self.held -= len(call.line)

    def _loosen(self, call: PendingRequest) -> None:
        call.line = b""
        self._loose[call.wire] = call
        if len(self._loose) > MAX_LOOSE:
            self.forget(next(iter(self._loose.values())))
