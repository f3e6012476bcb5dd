"""One line of the agent on its way: where it is, how long it may take, and what is said when it fails.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import NOT_EXECUTED, OUTCOME_UNKNOWN
from ...protocol.jsonrpc import Message, replace_id
from ...protocol.mcp import INITIALIZE, TOOLS_CALL, TOOLS_LIST
from ...protocol.tools import UNKNOWN_TOOL, rule_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NEVER = float("inf")
MARGIN_S = 5.0  # the broker's own deadlines come first
CACHE_AFTER_S = 2.0  # then what a cache can answer is answered from it
ASK_GRACE_S = 30.0  # how long a write's fate stays open where no broker can be had

# states of a call
WAITING = "waiting"  # to be sent as soon as there is a connection
SENT = "sent"  # on the connection that is open now
ASKING = "asking"  # a write that went out on a connection that was lost: its fate must be asked first
GONE = "gone"  # answered by us; kept so that a late answer can't be taken for another call's


class BrokerLimits:
    """The broker's limits in seconds, 0 for none; from hello's answer."""

    __slots__ = ("init_s", "run_s", "wait_s")

    def __init__(self, wait_s: float = 60.0, run_s: float = 60.0, init_s: float = 120.0) -> None:
        self.wait_s = wait_s
        self.run_s = run_s
        self.init_s = init_s

    def learn(self, told: Mapping[str, Any]) -> None:
        """Take over what is a number."""
        for name in self.__slots__:
            value = told.get(name)
            if isinstance(value, (int, float)) and value >= 0:
                setattr(self, name, float(value))

    def span(self, own_s: float | None, *, sent: bool) -> float:
        """How long a call may stay unanswered.

        Args:
            own_s: its own run limit, None for the broker's.
            sent: a broker has it. Where none has, it can't be running: its wait is all there is.
        """
        run = self.run_s if own_s is None else own_s
        if self.wait_s == 0:
            return NEVER
        if not sent:
            return self.wait_s
        return NEVER if run in (0, NEVER) else self.wait_s + run + MARGIN_S


class PendingRequest:
    """One request of the agent.

    Attributes:
        line: as the agent sent it, without newline; b"" once GONE.
        id, key: its id; wire: the key it has on the connection, another one where ids would collide.
        writes: whether it may change a store. rule: its tool's row in the table.
        own_s: its own run limit in seconds, None for the broker's.
        params: of initialize, {} else. cacheable: whether the cache may answer it, once it waited long enough.
        arrived: monotonic seconds. since: when it began to wait (anew). state: see above.
        connection, ordinal: where it was sent, 0 if it was not.
    """

    __slots__ = (
        "arrived",
        "cacheable",
        "cancelled",
        "connection",
        "id",
        "key",
        "line",
        "method",
        "ordinal",
        "own_s",
        "params",
        "rule",
        "sent_at",
        "since",
        "state",
        "tool",
        "tries",
        "wire",
        "writes",
    )

    def __init__(self, message: Message, line: bytes, now: float) -> None:
        self.line = line
        self.id = message.id
        self.key = self.wire = message.key
        self.method = message.method
        self.arrived = self.since = now
        self.state = WAITING
        self.connection = self.ordinal = self.tries = 0
        self.sent_at = 0.0
        self.cancelled = False
        self.own_s: float | None = None
        self.rule = UNKNOWN_TOOL
        self.writes = False
        self.tool = message.method
        self.params: dict[str, Any] = {}
        self.cacheable = message.method in (INITIALIZE, TOOLS_LIST)
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
    def owed(self) -> bool:
        """Whether the agent still waits for an answer."""
        return self.state != GONE and not self.cancelled

    def due(self, limits: BrokerLimits, *, hopeless_since: float) -> float:
        """When something must be done about it, NEVER if nothing must."""
        if self.state == GONE:
            return NEVER
        due = self.since + limits.span(None if self.cancelled else self.own_s, sent=self.state != WAITING)
        if self.state == ASKING:
            due = min(due, hopeless_since + ASK_GRACE_S)
        return min(due, self.arrived + CACHE_AFTER_S) if self.cacheable else due

    def answer(self, line: bytes) -> bytes:
        """The broker's answer as the agent must see it."""
        return line if self.wire == self.key else replace_id(line, self.id)

    def error(self, why: str, *, code: int = NOT_EXECUTED) -> tuple[int, str]:
        """(code, text) for a call that certainly was not executed, or was a read."""
        if code == NOT_EXECUTED:
            return code, f"{self.tool} was not executed: {why} It is safe to send it again."
        return code, f"{self.tool} was not executed: {why}"

    def unknown(self, why: str) -> tuple[int, str]:
        """(code, text) for a write that may have been executed."""
        look = f"check with {self.rule.check_with}" if self.rule.check_with else "check"
        return OUTCOME_UNKNOWN, (
            f"{self.tool}: outcome unknown. {why} It may or may not be stored: {look} before sending it again."
        )
