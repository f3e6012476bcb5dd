"""The table of the agent's requests: which are unanswered, under which id each travels, which were answered early.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...protocol import jsonrpc as rpc
from .pending_request import PendingRequest, RequestState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...protocol.jsonrpc import Message

MAX_LATE = 1000  # entries kept for late answers
OUR_IDS = "broker/"  # the prefix of ids that are ours on the connection
OUR_KEYS = rpc.key_of(OUR_IDS)


class PendingRequests:
    """Requests by the key that they have on the connection, oldest first.

    Attributes:
        unanswered: how many requests are owed an answer. held_bytes: of their lines.
        lost: writes that a lost connection carried and whose outcome is not known yet.
    """

    __slots__ = ("_aliases", "_late", "_requests", "held_bytes", "lost", "unanswered")

    def __init__(self) -> None:
        self._requests: dict[str, PendingRequest] = {}
        self._aliases = 0
        self._late: dict[str, PendingRequest] = {}  # owed nothing, but the broker may still answer
        self.lost: dict[str, PendingRequest] = {}
        self.unanswered = 0
        self.held_bytes = 0

    def __iter__(self) -> Iterator[PendingRequest]:
        """All entries, oldest first; the table may change meanwhile."""
        return iter(list(self._requests.values()))

    def get(self, wire_key: str) -> PendingRequest | None:
        """The entry with this key on the connection."""
        return self._requests.get(wire_key)

    def find(self, key: str) -> PendingRequest | None:
        """The oldest unanswered request that the agent knows by this id."""
        named = self._requests.get(key)
        candidates = list(self._requests.values()) if self._aliases else []
        for request in [named, *candidates] if named else candidates:
            if request.key == key and request.awaited:
                return request
        return None

    def add(self, request: PendingRequest, message: Message) -> None:
        """Add a new request. If its id is taken, it travels under another: two answers must not be confused."""
        if request.key in self._requests or request.key.startswith(OUR_KEYS):
            self._aliases += 1
            alias = f"{OUR_IDS}{self._aliases}"
            request.wire_key = rpc.key_of(alias)
            request.line = rpc.to_bytes({**message.body, "id": alias})
        self._requests[request.wire_key] = request
        self.unanswered += 1
        self.held_bytes += len(request.line)

    def lose(self, request: PendingRequest) -> None:
        """The connection that carried this write is lost."""
        request.state = RequestState.LOST
        self.lost[request.wire_key] = request

    def cancel(self, request: PendingRequest) -> None:
        """The agent does not want the answer any more; if one comes, it is passed on."""
        self._release(request)
        request.cancelled = True
        self._expect_late(request)

    def answered(self, request: PendingRequest) -> None:
        """It was answered here. If the broker may answer too, the entry stays: its id must not be used again."""
        if request.state != RequestState.SENT:
            self.remove(request)
            return
        self._release(request)
        request.state = RequestState.OVER
        self._expect_late(request)

    def remove(self, request: PendingRequest) -> None:
        """Take it out of the table."""
        self._release(request)
        self.lost.pop(request.wire_key, None)
        self._late.pop(request.wire_key, None)
        self._requests.pop(request.wire_key, None)
        request.state = RequestState.OVER  # loops over a copy of the table skip it

    def _release(self, request: PendingRequest) -> None:
        if request.awaited:
            self.unanswered -= 1
            self.held_bytes -= len(request.line)

    def _expect_late(self, request: PendingRequest) -> None:
        request.line = b""
        self._late[request.wire_key] = request
        if len(self._late) > MAX_LATE:
            self.remove(next(iter(self._late.values())))
