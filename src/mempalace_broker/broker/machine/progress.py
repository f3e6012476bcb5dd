"""Reports the progress of a call to its client if that gave a progress token: MCP's notifications/progress.

A call that is answered within `EVERY_S` costs only an entry here, which holds no part of the call.

The unit of progress is a second, without a total; of a mine it is a file, and the total is known once mempalace has
counted them. MCP wants each value to be larger than the last one, so that of a mine also grows a little within a file.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .call import CallState
from .effects import Send
from .scheduler import MINE
from .supervisor import EngineState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeGuard

    from .call import Call
    from .dispatcher import Dispatcher
    from .session import Session

EVERY_S = 5.0
_LEAST = 0.001  # by which the progress of a mine grows
_MOST_CHARS = 256
_MOST_BITS = 63


class _Watched(NamedTuple):
    at: float
    conn: int
    key: str
    n: int
    token: str | int
    sent: float = 0.0


class Progress:
    """The calls of all sessions that have a progress token."""

    def __init__(self, sessions: Mapping[int, Session], dispatcher: Dispatcher) -> None:
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._watched: deque[_Watched] = deque()  # in order of time, because all intervals are the same

    def watch(self, session: Session, key: str, call: Call, params: Mapping[str, Any]) -> None:
        """Report on this call if its client asked for it. A single request over HTTP has room only for its answer."""
        meta = params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if _is_token(token) and not session.asks_only:
            self._watched.append(_Watched(call.arrived + EVERY_S, session.conn, key, call.n, token))

    def due(self, now: float) -> list[Send]:
        """Return the notifications to send now."""
        out = []
        while self._watched and self._watched[0].at <= now:
            entry = self._watched.popleft()
            call = self._find(entry)
            if call is not None:
                value = _value(call, entry.sent, now)
                out.append(Send(entry.conn, _line(entry.token, value, call.files, self._how(call, now))))
                self._watched.append(entry._replace(at=now + EVERY_S, sent=value))
        return out

    def next_deadline(self) -> float | None:
        """When to call `due` next, or None."""
        return self._watched[0].at if self._watched else None

    def _find(self, entry: _Watched) -> Call | None:
        session = self._sessions.get(entry.conn)
        calls = session.by_id.get(entry.key, ()) if session is not None else ()
        return next((call for call in calls if call.n == entry.n), None)

    def _how(self, call: Call, now: float) -> str:
        """Describe the state of a call, without naming another session's tool."""
        supervisor = self._dispatcher.supervisor
        if self._dispatcher.holder:
            return "waiting for another process that works on the palace"
        if self._dispatcher.lent:
            return "waiting for a command that has the palace for itself"
        if supervisor.state != EngineState.READY:
            return f"waiting for the engine, which has been {supervisor.state} for {now - supervisor.since:.0f} s"
        if call.state is CallState.SENT and call.begun:
            return f"{_file(call)}running for {now - call.started:.0f} s"
        return f"waiting for its turn for {now - call.arrived:.0f} s"


def _is_token(token: object) -> TypeGuard[str | int]:
    if isinstance(token, str):
        return len(token) <= _MOST_CHARS
    return isinstance(token, int) and not isinstance(token, bool) and token.bit_length() <= _MOST_BITS


def _value(call: Call, sent: float, now: float) -> float:
    """The progress of a call. `sent`: the last one that its client was told."""
    if call.tool != MINE:
        return round(now - call.arrived, 1)
    return round(max(sent + _LEAST, call.file - 1), 3)


def _file(call: Call) -> str:
    """Where a mine is, "" for any other call."""
    if not call.files:
        return ""
    return f"file {call.file} of {call.files} ({100 * (call.file - 1) // call.files} % done), "


def _line(token: str | int, progress: float, total: int, message: str) -> bytes:
    params: dict[str, Any] = {"progressToken": token, "progress": progress, "message": message}
    params |= {"total": total} if total else {}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode() + b"\n"
