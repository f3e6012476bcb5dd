"""The agent's requests: where each is, how long it may take, the error it ends with, and the table of them all.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import NOT_EXECUTED, OUTCOME_UNKNOWN
from ...protocol import jsonrpc as rpc
from ...protocol.jsonrpc import INITIALIZE, TOOLS_CALL, TOOLS_LIST
from ...protocol.tools import UNKNOWN_TOOL, rule_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, ClassVar

    from ...protocol.jsonrpc import Message

NO_DEADLINE = float("inf")
MARGIN_S = 5.0  # the broker's own deadlines come first
CACHE_AFTER_S = 2.0  # how long initialize and tools/list wait for a broker before the cache answers them
MAX_LATE = 1000  # entries kept for late answers
OUR_IDS = "broker/"  # the prefix of ids that are ours on the connection
OUR_KEYS = rpc.key_of(OUR_IDS)
ASK_GRACE_S = 30.0  # how long a lost write waits for a broker that can be asked about it


class RequestState(str):
    """Where a request is."""

    __slots__ = ()

    WAITING: ClassVar[RequestState]  # to be sent as soon as there is a connection
    TRANSLATING: ClassVar[RequestState]  # to be sent once the broker's names of its paths are known
    SENT: ClassVar[RequestState]  # on the connection that is open now
    LOST: ClassVar[RequestState]  # a write that a lost connection carried: its outcome must be asked first
    OVER: ClassVar[RequestState]  # owed no answer; kept so that a late one can't be taken for another request's


RequestState.WAITING = RequestState("waiting")
RequestState.TRANSLATING = RequestState("translating")
RequestState.SENT = RequestState("sent")
RequestState.LOST = RequestState("lost")
RequestState.OVER = RequestState("over")


class BrokerLimits:
    """The broker's limits in seconds, 0 for none; hello's answer says them."""

    __slots__ = ("init_s", "run_s", "wait_s")

    def __init__(self, wait_s: float = 60.0, run_s: float = 60.0, init_s: float = 120.0) -> None:
        self.wait_s = wait_s
        self.run_s = run_s
        self.init_s = init_s

    def update(self, told: Mapping[str, Any]) -> None:
        """Apply the numeric limits."""
        for name in self.__slots__:
            value = told.get(name)
            if isinstance(value, (int, float)) and value >= 0:
                setattr(self, name, float(value))

    def span(self, own_s: float | None, *, sent: bool) -> float:
        """How long a request may stay unanswered.

        Args:
            own_s: its own run limit, None for the broker's.
            sent: whether a broker has it. Otherwise it can't be running, and only its wait counts.
        """
        run = self.run_s if own_s is None else own_s
        if self.wait_s == 0:
            return NO_DEADLINE
        if not sent:
            return self.wait_s
        return NO_DEADLINE if run in (0, NO_DEADLINE) else self.wait_s + run + MARGIN_S


class PendingRequest:
    """One request of the agent.

    Attributes:
        line: as the agent sent it, without newline; b"" once it is OVER.
        id, key: its id; wire_key: its key on the connection, a different one where ids would collide.
        tool: the tool's name, for people; the method's where it is not a tool call.
        writes: whether it may change a store. rule: its tool's row in the table.
        own_s: its own run limit in seconds, None for the broker's.
        params: of initialize, {} for any other method.
        early: whether it may be sent before hello is answered, and be answered from the cache.
        cacheable: whether the cache is still to be tried once it has waited long enough.
        arrived: monotonic seconds. since: when it began to wait (again). state: see above.
        connection, ordinal: where it was sent, 0 if it was not. sent_at: when. tries: how often.
    """

    def __init__(self, message: Message, line: bytes, now: float) -> None:
        self.line = line
        self.id = message.id
        self.key = self.wire_key = message.key
        self.method = message.method
        self.arrived = self.since = now
        self.state = RequestState.WAITING
        self.connection = self.ordinal = self.tries = 0
        self.sent_at = 0.0
        self.own_s: float | None = None
        self.rule = UNKNOWN_TOOL
        self.writes = False
        self.tool = message.method
        self.params: dict[str, Any] = {}
        self.early = self.cacheable = message.method in (INITIALIZE, TOOLS_LIST)
        if message.method == TOOLS_CALL:
            self._read_tool(message.params)
        elif message.method == INITIALIZE:
            self.params = message.params

    def _read_tool(self, params: Mapping[str, Any]) -> None:
        name, arguments = params.get("name"), params.get("arguments")
        self.tool = name if isinstance(name, str) else TOOLS_CALL
        self.rule = rule = rule_for(name)
        self.writes = rule.may_write(arguments)
        self.own_s = rule.own_limit_s(arguments)

    @property
    def awaited(self) -> bool:
        """Whether the agent still waits for an answer."""
        return self.state != RequestState.OVER

    @property
    def may_have_run(self) -> bool:
        """Whether it is a write that a broker has, or had."""
        return self.state == RequestState.LOST or (self.state == RequestState.SENT and self.writes)

    def due(self, limits: BrokerLimits, *, hopeless_since: float) -> float:
        """When something must be done about it, NO_DEADLINE if nothing must."""
        if self.state == RequestState.OVER:
            return NO_DEADLINE
        due = self.since + limits.span(self.own_s, sent=self.state in (RequestState.SENT, RequestState.LOST))
        if self.state == RequestState.LOST:
            due = min(due, hopeless_since + ASK_GRACE_S)
        return min(due, self.arrived + CACHE_AFTER_S) if self.cacheable else due

    def answer(self, line: bytes) -> bytes:
        """The broker's answer under the id that the agent gave."""
        return line if self.wire_key == self.key else rpc.replace_id(line, self.id)

    def error(self, why: str, *, code: int = NOT_EXECUTED) -> tuple[int, str]:
        """Return (code, text) for a request that certainly was not executed, or was a read."""
        if code == NOT_EXECUTED:  # a hint stands last: it may end with a command, without a full stop
            reason, hint, step = why.partition(" Hint: ")
            return code, f"{self.tool} was not executed: {reason} It is safe to send it again.{hint}{step}"
        return code, f"{self.tool} was not executed: {why}"

    def unknown(self, why: str) -> tuple[int, str]:
        """Return (code, text) for a write that may have been executed."""
        look = f"check with {self.rule.check_with}" if self.rule.check_with else "check"
        return OUTCOME_UNKNOWN, (
            f"{self.tool}: outcome unknown. {why} It may or may not be stored: {look} before sending it again."
        )


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

    def answered(self, request: PendingRequest) -> None:
        """It was answered here, or cancelled. If the broker may answer it, its id stays taken."""
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
