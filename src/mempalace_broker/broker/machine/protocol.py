"""The broker's core: lines of many clients in, frames of one engine out, and back. No IO, no clock, no randomness.

    opened / line / too_long / closed     what clients do
    desk.*                                what the engine does (see desk.py)
    tick / next_deadline                  time
    take()                                the effects to carry out, in order

`initialize`, `ping`, `tools/list` and every broker/* method are answered here, whatever the engine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol import jsonrpc as rpc
from ...protocol.framing import TooLong
from ...protocol.hello import HELLO, OUTCOMES, WIRE_VERSION
from ...protocol.mcp import CANCELLED, INITIALIZE, TOOLS_CALL, TOOLS_LIST
from ...protocol.palace import PalaceIdentity
from ...protocol.tools import NO_LIMIT, Lane, Replay, ToolRule, rule_for
from .dispatcher import Dispatcher
from .effects import Close, Effect, Log, Quit, Retire, Send
from .judge_hello import judge_hello
from .pending_replies import PendingReplies
from .scheduler import QUEUED, Call, Limits
from .session import Session, is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...protocol.jsonrpc import Message
    from ...protocol.palace import FileView
    from .answers import Answers
    from .supervisor import Policy

MAX_BATCH = 10_000
SERVING, DRAINING, OVER = "serving", "draining", "over"
_NO_SUCH_TOOL = ToolRule("", store="", lane=Lane.FREE, writes=False, replay=Replay.READ, known=False)


class BrokerProtocol:
    """See the module. Times are monotonic seconds.

    Args:
        identity: the palace served.
        label: prefix for journal keys of clients that don't greet; unique per broker.
        hello: what a welcome carries besides limits: record id, broker version, pid.
        idle_s: leave after this long without sessions and work; 0 = never.
        drain_s: how long running calls may go on when the broker is told to leave.
        status: makes the answer to broker/status.
    """

    def __init__(
        self,
        *,
        identity: PalaceIdentity,
        limits: Limits,
        policy: Policy,
        rng: Callable[[], float],
        answers: Answers,
        label: str,
        hello: dict[str, Any],
        idle_s: float,
        drain_s: float,
        now: float,
        status: Callable[[float], dict[str, Any]] = lambda now: {"now": now},
    ) -> None:
        self.identity = identity
        self.view: FileView | None = None  # of the files, to be compared with a client's
        self.mounts: Callable[[], list[list[str]]] = list  # the mount table, for clients with another view
        self.limits = limits
        self.answers = answers
        self.state = SERVING
        self.sessions: dict[int, Session] = {}
        self.counters = dict.fromkeys(("calls", "reads", "writes", "cancelled", "sessions"), 0)
        self.effects: list[Effect] = []
        self.dispatcher = Dispatcher(
            limits=limits, policy=policy, rng=rng, answers=answers, effects=self.effects, reply=self._reply
        )
        self._hello = hello
        self._status = status
        self._label = label
        self._idle_s = idle_s
        self._drain_s = drain_s
        self._idle_since: float | None = now
        self._drain_until = 0.0
        self._reason = ""
        self._n = 0
        self._pending_replies = PendingReplies(self.dispatcher, answers, limits.init_s)

    def take(self) -> list[Effect]:
        """The effects since the last call."""
        out = self.effects[:]
        self.effects.clear()
        return out

    # -- clients

    def opened(self, conn: int, now: float, pid: int = 0) -> None:
        """A connection was accepted; `pid` of the peer where it is known."""
        self.sessions[conn] = Session(conn, now, pid, self._label)

    def closed(self, conn: int, now: float) -> None:
        """A connection is gone: what it had waiting is withdrawn, what runs goes on and is remembered."""
        session = self.sessions.pop(conn, None)
        if session is None:
            return
        for calls in session.by_id.values():
            for call in calls:
                self.dispatcher.scheduler.withdraw(call)
                call.answered = True
        self._pending_replies.drop(conn)
        self._mark_idle(now)
        self._drained(now)

    def half_closed(self, conn: int) -> None:
        """A client sends no more. A shim that does so is dead; a bare client still gets what it asked for."""
        session = self.sessions.get(conn)
        if session is None:
            return
        session.finishing = True
        if session.greeted or not self._owes(session):
            self.effects.append(Close(conn, "end of input"))

    def _owes(self, session: Session) -> bool:
        return bool(session.by_id) or self._pending_replies.owed(session.conn)

    def too_long(self, conn: int, limit: int) -> None:
        """A line beyond the limit came and was skipped."""
        session = self.sessions.get(conn)
        if session is None:
            return
        session.ordinal += 1
        text = f"Invalid request: a line of more than {limit} bytes"
        self._send(session, rpc.error_line(None, errors.INVALID_REQUEST, text))

    def line(self, conn: int, line: bytes, now: float) -> None:
        """One line of a client, without its newline."""
        session = self.sessions.get(conn)
        if session is None or session.refused:
            return
        session.ordinal += 1
        message = rpc.parse(line)
        if message.kind == rpc.BATCH and len(message.body) > MAX_BATCH:
            text = f"Invalid request: a batch of more than {MAX_BATCH} elements"
            self._send(session, rpc.error_line(None, errors.INVALID_REQUEST, text))
        elif message.kind == rpc.BATCH:
            for part, value in enumerate(message.body, 1):
                element = rpc.classify(value)
                raw = rpc.to_bytes(value) if element.kind == rpc.REQUEST else b""
                self._message(session, element, raw, part, now)
        else:
            self._message(session, message, line, 0, now)

    def lines(self, conn: int, lines: Iterable[bytes | TooLong], now: float) -> None:
        """Several at once, as they came off the wire."""
        for line in lines:
            if isinstance(line, TooLong):
                self.too_long(conn, line.limit)
            else:
                self.line(conn, line, now)

    def _message(self, session: Session, message: Message, raw: bytes, part: int, now: float) -> None:
        if message.kind == rpc.REQUEST:
            self._request(session, message, raw, part, now)
        elif message.kind == rpc.NOTIFICATION:
            if message.method == CANCELLED:
                self._cancel(session, message.params.get("requestId"))
        elif message.kind == rpc.BAD:
            self._send(session, rpc.error_line(message.id, message.code, message.text))

    def _request(self, session: Session, message: Message, raw: bytes, part: int, now: float) -> None:
        method = message.method
        if method.startswith("broker/"):
            self._broker_method(session, message, now)
            return
        if not session.counted:
            session.counted = True
            self.counters["sessions"] += 1
        self._idle_since = None
        if method == TOOLS_CALL:
            self._tools_call(session, message, raw, part, now)
        elif method == "ping":
            self._send(session, rpc.result_line(message.id, {}))
        elif method == INITIALIZE:
            session.introduce(message.params.get("clientInfo"))
            self._send(session, rpc.result_line(message.id, self.answers.initialize(message.body.get("params"))))
        elif method == TOOLS_LIST:
            self._pending_replies.ask_tools(session.conn, message.id, now)
            self._settle_pending_replies(now)
        else:
            self._send(session, rpc.error_line(message.id, errors.METHOD_NOT_FOUND, f"Unknown method: {method}"))

    def _tools_call(self, session: Session, message: Message, raw: bytes, part: int, now: float) -> None:
        if self.state != SERVING:
            if not session.greeted:  # a shim sends it again to the next broker
                self._send(session, rpc.error_line(message.id, errors.NOT_EXECUTED, self._leaving_text()))
            return
        tool = message.params.get("name")
        arguments = message.params.get("arguments")
        rule = rule_for(tool)
        if not rule.known and not self._offered(tool):
            rule = _NO_SUCH_TOOL  # the engine says so at once
        self.counters["calls"] += 1
        if rule.graph and session.graph_refused:
            self._send(session, rpc.error_line(message.id, errors.OTHER_PALACE, session.graph_refused))
            return
        if session.open_calls >= self.limits.session_calls:
            text = f"not executed: {session.open_calls} calls of this session wait already. Send it again later."
            self._send(session, rpc.error_line(message.id, errors.OVERLOADED, text))
            return
        call = self._call(session, message, raw, part, now, rule, arguments)
        self.counters["writes" if call.writes else "reads"] += 1
        session.add(message.key, call)
        self.dispatcher.submit(call, now)

    def _call(
        self,
        session: Session,
        message: Message,
        raw: bytes,
        part: int,
        now: float,
        rule: ToolRule,
        arguments: Any,
    ) -> Call:
        self._n += 1
        own = rule.own_limit_s(arguments)
        run_limit: float | None = None
        if own != NO_LIMIT and self.limits.run_s:
            run_limit = self.limits.run_s if own is None else own
        return Call(
            n=self._n,
            conn=session.conn,
            key=session.key(part),
            id=message.id,
            raw=raw,
            tool=rule.name or str(message.params.get("name"))[:64],
            rule=rule,
            arrived=now,
            run_limit=run_limit,
            writes=rule.may_write(arguments),
            replay=rule.replay_for(arguments),
            exclusive=(not rule.known and rule is not _NO_SUCH_TOOL) or rule.name == "mempalace_reconnect",
        )

    def _offered(self, tool: object) -> bool:
        if not self.answers.fresh or self.answers.tools is None:
            return True
        return any(isinstance(entry, dict) and entry.get("name") == tool for entry in self.answers.tools)

    def _cancel(self, session: Session, id_: Any) -> None:
        if not rpc.is_id(id_):
            return
        key = rpc.key_of(id_)
        for call in session.by_id.get(key, ()):
            if call.state == QUEUED and self.dispatcher.scheduler.withdraw(call):
                call.answered = True
                session.remove(key, call)
                self.counters["cancelled"] += 1
                return

    # -- answers

    def _send(self, session: Session, line: bytes) -> None:
        session.answered += 1
        self.effects.append(Send(session.conn, line))
        if session.finishing and not self._owes(session):
            self.effects.append(Close(session.conn, "end of input"))

    def _reply(self, call: Call, line: bytes) -> None:
        session = self.sessions.get(call.conn)
        if session is None:
            return
        session.remove(rpc.key_of(call.id), call)
        self._send(session, line)

    # -- broker/*

    def _broker_method(self, session: Session, message: Message, now: float) -> None:
        if message.method == HELLO:
            self._greet(session, message, now)
        elif message.method == OUTCOMES:
            wrong = self._pending_replies.ask_outcomes(session, message, now)
            if wrong:
                self._send(session, rpc.error_line(message.id, errors.INVALID_PARAMS, wrong))
            self._settle_pending_replies(now)
        elif message.method == "broker/status":
            self._send(session, rpc.result_line(message.id, self._status(now)))
        elif message.method in ("broker/stop", "broker/restart"):
            mode = message.params.get("mode", "drain")
            reason = str(message.params.get("reason") or message.method.removeprefix("broker/"))
            self._send(session, rpc.result_line(message.id, {"stopping": True, "pid": self._hello.get("pid")}))
            self.drain(now, reason, at_once=mode == "now")
        else:
            text = f"Unknown method: {message.method}"
            self._send(session, rpc.error_line(message.id, errors.METHOD_NOT_FOUND, text))

    def _greet(self, session: Session, message: Message, now: float) -> None:
        params = message.params
        name, connection = params.get("session"), params.get("connection")
        verdict = judge_hello(params, self.identity, self.view)
        if not isinstance(connection, int):
            connection = 0
        if session.ordinal != 1 or not is_name(name) or connection < 1:
            verdict.code = errors.INVALID_PARAMS
            verdict.message = "hello must be the first line, with session (letters and digits) and connection (number)"
        if verdict.code:
            self._send(session, rpc.error_line(message.id, verdict.code, verdict.message))
            session.refused = True
            self.effects.append(Close(session.conn, f"hello refused: {verdict.message}"))
            return
        for other in list(self.sessions.values()):
            if other.greeted and other.name == name and other.connection < connection:
                self.effects.append(Close(other.conn, "the same client came back on a new connection"))
                self.closed(other.conn, now)
        pid = params.get("pid")
        session.greet(str(name), connection, str(params.get("client", ""))[:64], pid if isinstance(pid, int) else 0)
        session.graph_refused = verdict.graph_refused
        self._idle_since = None
        welcome = {
            **self._hello,
            "wire": WIRE_VERSION,
            "capabilities": ["outcomes"],
            "palace": self.identity.as_json(),
            "limits": {
                "wait_s": self.limits.wait_s,
                "run_s": self.limits.run_s,
                "init_s": self.limits.init_s,
            },
            "notice": verdict.notice or None,
        }
        if not verdict.same_files:
            mounts = self.mounts() if verdict.same_kernel else []
            welcome["files"] = {"same_kernel": verdict.same_kernel, "palace": self.identity.path, "mounts": mounts}
        self._send(session, rpc.result_line(message.id, welcome))

    def _settle_pending_replies(self, now: float) -> None:
        for conn, line in self._pending_replies.settle(now):
            self._send(self.sessions[conn], line)

    # -- time and the end

    def tick(self, now: float) -> None:
        """Do what is due, and what the last events made possible."""
        self.dispatcher.tick(now)
        self.settle(now)
        if self.state == SERVING and self._idle_s and self._idle_since is not None:
            if now - self._idle_since >= self._idle_s:
                self.drain(now, f"idle for {self._idle_s:g} s")
        elif self.state == DRAINING and now >= self._drain_until:
            self._leave()

    def settle(self, now: float) -> None:
        """Answer what waited for the engine's word: tools/list and outcomes. Call after every engine event."""
        self._settle_pending_replies(now)
        self._drained(now)

    def _mark_idle(self, now: float) -> None:
        if self._idle_since is not None or not self.dispatcher.scheduler.idle:
            return  # before the sessions are looked at: this runs after every event
        if not any(session.greeted or session.counted for session in self.sessions.values()):
            self._idle_since = now

    def next_deadline(self) -> float | None:
        """When `tick` is due next, or None."""
        times = [self.dispatcher.next_deadline(), self._pending_replies.next_deadline()]
        if self.state == SERVING and self._idle_s and self._idle_since is not None:
            times.append(self._idle_since + self._idle_s)
        if self.state == DRAINING:
            times.append(self._drain_until)
        return min((t for t in times if t is not None), default=None)

    def drain(self, now: float, reason: str, *, at_once: bool = False) -> None:
        """Leave: nothing more goes in; what runs may finish within `drain_s`, unless `at_once`."""
        if self.state != SERVING:
            if at_once and self.state == DRAINING:
                self._leave()
            return
        self.state = DRAINING
        self._reason = reason
        self._drain_until = now + self._drain_s
        self.dispatcher.holding = True
        self.effects.append(Log("info", f"leaving: {reason}"))
        self.effects.append(Retire())
        for call in self.dispatcher.scheduler.waiting():
            session = self.sessions.get(call.conn)
            self.dispatcher.scheduler.withdraw(call)
            if session is not None and not session.greeted:
                self.dispatcher.fail_waiting(call, errors.NOT_EXECUTED, self._leaving_text())
        if at_once:
            self._leave()
        else:
            self._drained(now)

    def _drained(self, now: float) -> None:
        if self.state == DRAINING and not self.dispatcher.scheduler.running:
            self._leave()
        elif self.state == SERVING:
            self._mark_idle(now)

    def _leave(self) -> None:
        if self.state != OVER:
            self.state = OVER
            for session in self.sessions.values():
                if not session.greeted:  # a shim asks the next broker
                    self._turn_away(session)
            self.effects.append(Quit(self._reason))

    def _leaving_text(self) -> str:
        return f"not executed: the broker is leaving ({self._reason}). Send it again on a new connection."

    def _turn_away(self, session: Session) -> None:
        for call in [call for calls in session.by_id.values() for call in calls]:
            self.dispatcher.abandon(call, self._leaving_text())
        for id_ in self._pending_replies.give_up_tools(session.conn):
            self._send(session, rpc.error_line(id_, errors.NOT_EXECUTED, self._leaving_text()))
