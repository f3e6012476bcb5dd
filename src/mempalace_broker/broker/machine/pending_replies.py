"""Answers that wait for somebody's word: `tools/list` until an engine has told its tools, `broker/outcomes` until
nobody works on those writes any more. The hub asks `settle` after every event."""

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
class _Tools:
    conn: int
    id: Any
    deadline: float  # 0: none


@dataclass(slots=True)
class _Fates:
    conn: int
    id: Any
    keys: Mapping[str, tuple[str, float]]  # ordinal -> (journal key, sent at)


class PendingReplies:
    """See the module. Answers come as (connection, line)."""

    def __init__(self, dispatcher: Dispatcher, answers: Answers, init_s: float) -> None:
        self._desk = dispatcher
        self._answers = answers
        self._init_s = init_s
        self._tools: list[_Tools] = []
        self._fates: list[_Fates] = []
        self._tools_result: tuple[object, bytes] = (None, b"")

    def ask_tools(self, conn: int, id_: Any, now: float) -> None:
        """`tools/list`."""
        self._tools.append(_Tools(conn, id_, now + self._init_s if self._init_s else 0.0))

    def ask_outcomes(self, session: Session, message: Message, now: float) -> str:
        """`broker/outcomes`: the fates of lines of an earlier connection. Returns what is wrong with it, or ""."""
        connection, lines = message.params.get("connection"), message.params.get("lines")
        age = message.params.get("age_s", _OLD_AGE_S)
        if not session.greeted or not isinstance(connection, int) or not isinstance(lines, list):
            return "broker/outcomes needs a greeted session, connection (number) and lines (list of numbers)"
        sent_at = now - (age if isinstance(age, (int, float)) and age >= 0 else _OLD_AGE_S)
        epoch = message.params.get("epoch")
        if isinstance(epoch, int) and epoch < self._desk.outcomes.since:
            sent_at = float("-inf")
        keys = {str(n): (session.key_of(connection, n), sent_at) for n in lines if isinstance(n, int)}
        self._fates.append(_Fates(session.conn, message.id, keys))
        return ""

    def drop(self, conn: int) -> None:
        """The connection is gone."""
        self._tools = [ask for ask in self._tools if ask.conn != conn]
        self._fates = [ask for ask in self._fates if ask.conn != conn]

    def give_up_tools(self, conn: int) -> list[Any]:
        """Ids of that connection's `tools/list`, which will not be answered here any more."""
        ids = [ask.id for ask in self._tools if ask.conn == conn]
        self._tools = [ask for ask in self._tools if ask.conn != conn]
        return ids

    def owed(self, conn: int) -> bool:
        """Whether that connection still waits for one of these."""
        return any(ask.conn == conn for ask in self._tools) or any(ask.conn == conn for ask in self._fates)

    def next_deadline(self) -> float | None:
        """When `settle` has an inquiry to give up."""
        return min((ask.deadline for ask in self._tools if ask.deadline), default=None)

    def settle(self, now: float) -> list[tuple[int, bytes]]:
        """What can be answered by now."""
        out: list[tuple[int, bytes]] = []
        if self._tools:
            asked, self._tools = self._tools, []
            for ask in asked:
                line = self._tools_line(ask, now)
                if line:
                    out.append((ask.conn, line))
                else:
                    self._tools.append(ask)
        if self._fates and self._desk.settled:
            ready = [a for a in self._fates if not any(self._desk.is_open(key) for key, _ in a.keys.values())]
            self._fates = [ask for ask in self._fates if ask not in ready]
            out.extend((ask.conn, self._fates_line(ask)) for ask in ready)
        return out

    def _tools_line(self, ask: _Tools, now: float) -> bytes:
        tools = self._answers.tools
        if tools is not None:
            if self._tools_result[0] is not tools:
                self._tools_result = (tools, rpc.to_bytes({"tools": tools}))
            return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (rpc.to_bytes(ask.id), self._tools_result[1])
        if self._desk.supervisor.hopeless:
            return rpc.error_line(ask.id, errors.ENGINE_DOWN, self._desk.why_down())
        if ask.deadline and now >= ask.deadline:
            text = f"no engine told its tools in time: {self._desk.why_down()}"
            return rpc.error_line(ask.id, errors.ENGINE_DOWN, text)
        return b""

    def _fates_line(self, ask: _Fates) -> bytes:
        outcomes: dict[str, dict[str, Any]] = {}
        for ordinal, (key, sent_at) in ask.keys.items():
            state, response = self._desk.outcomes.fate(key, sent_at)
            outcomes[ordinal] = {"state": state}
            if state == WriteOutcome.DONE and response is not None:
                outcomes[ordinal]["response"] = rpc.parse(response).body
            self._desk.counters["unknown_outcomes"] += state == WriteOutcome.UNKNOWN
        return rpc.result_line(ask.id, {"outcomes": outcomes})
