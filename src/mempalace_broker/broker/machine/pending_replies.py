"""Requests that can't be answered yet: `tools/list` until an engine has reported its tools, `broker/outcomes` until no
engine works on those writes any more. `settle` is called after every event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol import jsonrpc as rpc
from ...protocol.hello import MAX_CONNECTION, MAX_LINES, MAX_ORDINAL, WriteOutcome
from ...protocol.tools import without_writers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...protocol.jsonrpc import Message
    from .answers import Answers
    from .dispatcher import Dispatcher
    from .session import Session

_OLD_AGE_S = 600.0  # of a write whose sender does not say when it was sent
_MAX_AGE_S = 1e9
_WRONG = (
    "broker/outcomes needs a greeted session with a secret, connection (number) and lines "
    f"(list of at most {MAX_LINES} numbers)"
)
_ONE_AT_A_TIME = "broker/outcomes: one question at a time"


@dataclass(slots=True)
class _ToolsRequest:
    conn: int
    id: Any
    read_only: bool
    deadline: float  # 0: none


@dataclass(slots=True)
class _OutcomesRequest:
    conn: int
    id: Any
    keys: Mapping[str, str]  # journal key -> ordinal
    sent_at: float | None  # as in Outcomes.outcome


class PendingReplies:
    """Those of all sessions."""

    def __init__(self, dispatcher: Dispatcher, answers: Answers, init_s: float) -> None:
        self._dispatcher = dispatcher
        self._answers = answers
        self._init_s = init_s
        self._tools: list[_ToolsRequest] = []
        self._outcomes: list[_OutcomesRequest] = []
        self._listed: object = None
        self._tools_results = (b"", b"")  # for all sessions, for read-only ones

    def ask_tools(self, session: Session, id_: Any, now: float) -> None:
        """Take a `tools/list`."""
        self._dispatcher.wake(now)
        self._tools.append(
            _ToolsRequest(session.conn, id_, session.read_only, now + self._init_s if self._init_s else 0.0)
        )

    def ask_outcomes(self, session: Session, message: Message, now: float) -> str:
        """Take a `broker/outcomes`, about lines of an earlier connection. Return what is wrong with it, or ""."""
        connection = rpc.whole_number(message.params.get("connection"), 1, MAX_CONNECTION)
        lines = message.params.get("lines")
        if not session.greeted or connection is None or not isinstance(lines, list) or len(lines) > MAX_LINES:
            return _WRONG
        if any(rpc.whole_number(n, 1, MAX_ORDINAL) is None for n in lines):
            return _WRONG
        if any(ask.conn == session.conn for ask in self._outcomes):
            return _ONE_AT_A_TIME
        age, epoch = message.params.get("age_s"), message.params.get("epoch")
        sent_at: float | None = now - (age if isinstance(age, int | float) and 0 <= age <= _MAX_AGE_S else _OLD_AGE_S)
        if isinstance(epoch, int) and epoch < self._dispatcher.outcomes.since:
            sent_at = None
        keys = {session.key_of(connection, n): str(n) for n in lines}
        self._outcomes.append(_OutcomesRequest(session.conn, message.id, keys, sent_at))
        return ""

    def drop(self, conn: int) -> None:
        """The connection is gone."""
        self._tools = [ask for ask in self._tools if ask.conn != conn]
        self._outcomes = [ask for ask in self._outcomes if ask.conn != conn]

    def cancel_tools(self, conn: int, id_: Any) -> bool:
        """Drop one `tools/list`, which its client cancelled; whether there was such a one."""
        key = rpc.key_of(id_)
        ask = next((ask for ask in self._tools if ask.conn == conn and rpc.key_of(ask.id) == key), None)
        if ask is not None:
            self._tools.remove(ask)
        return ask is not None

    def give_up_tools(self, conn: int) -> list[Any]:
        """Drop that connection's `tools/list` requests and return their ids."""
        ids = [ask.id for ask in self._tools if ask.conn == conn]
        self._tools = [ask for ask in self._tools if ask.conn != conn]
        return ids

    def owed(self, conn: int) -> bool:
        """Whether that connection still waits for one of these."""
        return any(ask.conn == conn for ask in self._tools) or any(ask.conn == conn for ask in self._outcomes)

    def next_deadline(self) -> float | None:
        """When `settle` has to give a request up, or None."""
        return min([ask.deadline for ask in self._tools if ask.deadline], default=None)

    def settle(self, now: float) -> list[tuple[int, bytes]]:
        """The answers that can be given by now, as (connection, line)."""
        out: list[tuple[int, bytes]] = []
        if self._tools:
            asked, self._tools = self._tools, []
            for ask in asked:
                line = self._tools_line(ask, now)
                if line:
                    out.append((ask.conn, line))
                else:
                    self._tools.append(ask)
        if self._outcomes and self._dispatcher.settled:
            running = self._dispatcher.scheduler.running_keys
            ready = [ask for ask in self._outcomes if not any(key in ask.keys for key in running)]
            self._outcomes = [ask for ask in self._outcomes if ask not in ready]
            out.extend((ask.conn, self._outcomes_line(ask)) for ask in ready)
        return out

    def _tools_line(self, ask: _ToolsRequest, now: float) -> bytes:
        tools = self._answers.tools
        if tools is not None:
            if self._listed is not tools:
                self._listed = tools
                self._tools_results = (
                    rpc.to_bytes({"tools": tools}),
                    rpc.to_bytes({"tools": without_writers(tools)}),
                )
            return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (
                rpc.to_bytes(ask.id),
                self._tools_results[ask.read_only],
            )
        if self._dispatcher.supervisor.hopeless:
            return rpc.error_line(ask.id, errors.ENGINE_DOWN, self._dispatcher.why_down(now))
        if ask.deadline and now >= ask.deadline:
            text = f"no engine reported its tools in time: {self._dispatcher.why_down(now)}"
            return rpc.error_line(ask.id, errors.ENGINE_DOWN, text)
        return b""

    def _outcomes_line(self, ask: _OutcomesRequest) -> bytes:
        outcomes: dict[str, dict[str, Any]] = {}
        for key, ordinal in ask.keys.items():
            state, response = self._dispatcher.outcomes.outcome(key, ask.sent_at)
            outcomes[ordinal] = {"state": state}
            if state == WriteOutcome.DONE and response is not None:
                outcomes[ordinal]["response"] = rpc.parse(response).body
            self._dispatcher.counters["unknown_outcomes"] += state == WriteOutcome.UNKNOWN
        return rpc.result_line(ask.id, {"outcomes": outcomes})
