"""Requests that can't be answered yet: `tools/list` until an engine has reported its tools, `broker/outcomes` until no
engine works on those writes any more. `settle` is called after every event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol import jsonrpc as rpc
from ...protocol.hello import WriteOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...protocol.jsonrpc import Message
    from .answers import Answers
    from .dispatcher import Dispatcher
    from .session import Session

_OLD_AGE_S = 600.0  # of a write whose sender does not say when it was sent


@dataclass(slots=True)
class _ToolsRequest:
    conn: int
    id: Any
    deadline: float  # 0: none


@dataclass(slots=True)
class _OutcomesRequest:
    conn: int
    id: Any
    keys: Mapping[str, tuple[str, float]]  # ordinal -> (journal key, sent at)


class PendingReplies:
    """Those of all sessions."""

    def __init__(self, dispatcher: Dispatcher, answers: Answers, init_s: float) -> None:
        self._dispatcher = dispatcher
        self._answers = answers
        self._init_s = init_s
        self._tools: list[_ToolsRequest] = []
        self._outcomes: list[_OutcomesRequest] = []
        self._tools_result: tuple[object, bytes] = (None, b"")

    def ask_tools(self, conn: int, id_: Any, now: float) -> None:
        """Take a `tools/list`."""
        self._tools.append(_ToolsRequest(conn, id_, now + self._init_s if self._init_s else 0.0))

    def ask_outcomes(self, session: Session, message: Message, now: float) -> str:
        """Take a `broker/outcomes`, about lines of an earlier connection. Return what is wrong with it, or ""."""
        connection, lines = message.params.get("connection"), message.params.get("lines")
        age = message.params.get("age_s", _OLD_AGE_S)
        if not session.greeted or not isinstance(connection, int) or not isinstance(lines, list):
            return "broker/outcomes needs a greeted session, connection (number) and lines (list of numbers)"
        sent_at = now - (age if isinstance(age, (int, float)) and age >= 0 else _OLD_AGE_S)
        epoch = message.params.get("epoch")
        if isinstance(epoch, int) and epoch < self._dispatcher.outcomes.since:
            sent_at = float("-inf")
        keys = {str(n): (session.key_of(connection, n), sent_at) for n in lines if isinstance(n, int)}
        self._outcomes.append(_OutcomesRequest(session.conn, message.id, keys))
        return ""

    def drop(self, conn: int) -> None:
        """The connection is gone."""
        self._tools = [ask for ask in self._tools if ask.conn != conn]
        self._outcomes = [ask for ask in self._outcomes if ask.conn != conn]

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
        return min((ask.deadline for ask in self._tools if ask.deadline), default=None)

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
            ready = [a for a in self._outcomes if not any(self._dispatcher.is_open(key) for key, _ in a.keys.values())]
            self._outcomes = [ask for ask in self._outcomes if ask not in ready]
            out.extend((ask.conn, self._outcomes_line(ask)) for ask in ready)
        return out

    def _tools_line(self, ask: _ToolsRequest, now: float) -> bytes:
        tools = self._answers.tools
        if tools is not None:
            if self._tools_result[0] is not tools:
                self._tools_result = (tools, rpc.to_bytes({"tools": tools}))
            return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (rpc.to_bytes(ask.id), self._tools_result[1])
        if self._dispatcher.supervisor.hopeless:
            return rpc.error_line(ask.id, errors.ENGINE_DOWN, self._dispatcher.why_down())
        if ask.deadline and now >= ask.deadline:
            text = f"no engine reported its tools in time: {self._dispatcher.why_down()}"
            return rpc.error_line(ask.id, errors.ENGINE_DOWN, text)
        return b""

    def _outcomes_line(self, ask: _OutcomesRequest) -> bytes:
        outcomes: dict[str, dict[str, Any]] = {}
        for ordinal, (key, sent_at) in ask.keys.items():
            state, response = self._dispatcher.outcomes.outcome(key, sent_at)
            outcomes[ordinal] = {"state": state}
            if state == WriteOutcome.DONE and response is not None:
                outcomes[ordinal]["response"] = rpc.parse(response).body
            self._dispatcher.counters["unknown_outcomes"] += state == WriteOutcome.UNKNOWN
        return rpc.result_line(ask.id, {"outcomes": outcomes})
