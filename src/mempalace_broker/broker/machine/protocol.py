"""The broker's core: lines of many clients in, frames of one engine out, and back. No IO, no clock, no randomness.

    opened / work / half_closed / closed      what clients do
    dispatcher.*                              what the engine does, see dispatcher.py
    tick / next_deadline                      time
    take                                      the effects to carry out, in order

`initialize`, `ping`, `tools/list` and every broker/* method are answered here, whatever the engine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol import jsonrpc as rpc
from ...protocol.hello import HELLO, OUTCOMES
from ...protocol.jsonrpc import CANCELLED, INITIALIZE, TOOLS_CALL, TOOLS_LIST
from .admin import answer_admin
from .call import NO_SUCH_TOOL, Call, call_of, rule_of
from .dispatcher import Dispatcher
from .effects import Close, ControlEngine, Effect, Log, OpenPage, Quit, Retire, Send, SendStatus, SendWelcome
from .failure_texts import read_only_line
from .greeting import Host, earlier_connections, greeted
from .guest_calls import GuestCalls, refuse_call
from .intake import SHARE, Piece, has_more, next_piece
from .lender import Lender
from .lifecycle import BrokerState, Lifecycle
from .pending_replies import PendingReplies
from .progress import Progress
from .session import Origin, Session

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from ...protocol.framing import TooLong
    from ...protocol.jsonrpc import Message
    from .answers import Answers
    from .supervisor import Policy


class BrokerProtocol:
    """All sessions of one broker. Times are monotonic seconds.

    Args:
        host: what the broker says of itself: palace, limits, view of the files.
        label: prefix for journal keys of clients that don't greet; unique per broker.
        lifecycle: when to leave.
        since: the first epoch whose writes are all in our journal, see outcomes.py.
    """

    def __init__(
        self,
        host: Host,
        *,
        policy: Policy,
        rng: Callable[[], float],
        answers: Answers,
        label: str,
        lifecycle: Lifecycle,
        since: int = 0,
    ) -> None:
        self.limits = host.limits
        self.answers = answers
        self.sessions: dict[int, Session] = {}
        self.counters = dict.fromkeys(("calls", "reads", "writes", "cancelled", "sessions"), 0)
        self.effects: list[Effect] = []
        self.dispatcher = Dispatcher(
            limits=host.limits,
            policy=policy,
            rng=rng,
            answers=answers,
            since=since,
            effects=self.effects,
            reply=self._reply,
        )
        self.host = host
        self._label = label
        self.lifecycle = lifecycle
        self._calls = 0
        self.guest_calls = GuestCalls(self.dispatcher, self._reply, self.effects)
        self._pending_replies = PendingReplies(self.dispatcher, answers, host.limits.init_s)
        self._lender = Lender(self.dispatcher, self.effects)
        self._progress = Progress(self.sessions, self.dispatcher)

    @property
    def state(self) -> BrokerState:
        """Whether the broker serves, drains, or has finished."""
        return self.lifecycle.state

    def take(self) -> list[Effect]:
        """Return the effects since the last call of this."""
        out, self.effects[:] = self.effects[:], []
        return out

    # -- clients

    def opened(
        self, conn: int, now: float, pid: int = 0, origin: Origin = Origin.HOST, agent: str = "", flow: int = 0
    ) -> None:
        """A client was accepted. `pid`: its process, or 0. `agent`: it only asks, in that name. `flow`: see Session."""
        session = self.sessions[conn] = Session(conn, now, pid, f"{self._label}{conn}", origin, flow or conn)
        session.agent, session.counted, session.asks_only = agent, bool(agent), bool(agent)

    def closed(self, conn: int, now: float) -> None:
        """A connection is gone: its queued calls are withdrawn, the running ones go on and are remembered."""
        session = self.sessions.pop(conn, None)
        if session is None:
            return
        if session.agent and not session.asks_only:
            self.effects.append(Log("info", session.ended(now), session))
        for call in [call for calls in session.by_id.values() for call in calls]:
            self._give_up(call)
        self._pending_replies.drop(conn)
        self._lender.drop(conn)
        self._mark_idle(now)
        self._drained(now)

    def _give_up(self, call: Call) -> None:
        """Nobody wants its answer any more: withdraw it; where it runs, it goes on and is remembered."""
        self.guest_calls.withdraw(call)
        call.answered = True
        call.raw = b""  # it is not run again

    def half_closed(self, conn: int) -> None:
        """A client sends no more. A shim that does so is dead; a bare client still gets its answers."""
        if (session := self.sessions.get(conn)) is None:
            return
        session.finishing = True
        if session.greeted:
            self.effects.append(Close(conn, "end of input"))
        else:
            self._close_if_done(session)

    def _close_if_done(self, session: Session) -> None:
        if session.finishing and not session.by_id and not self._pending_replies.owed(session.conn):
            self.effects.append(Close(session.conn, "end of input"))

    def work(self, conn: int, lines: deque[bytes | TooLong], now: float) -> bool:
        """Take lines, oldest first, until the client has had its share of this turn; return whether there is more."""
        share = SHARE
        while share > 0:
            session = self.sessions.get(conn)
            if session is None or session.refused:
                lines.clear()
                return False
            piece = next_piece(session, lines)
            if piece is None:
                return False
            share -= piece.cost
            self._message(session, piece, now)
        return has_more(self.sessions.get(conn), lines)

    def _message(self, session: Session, piece: Piece, now: float) -> None:
        message = piece.message
        if message.kind == rpc.REQUEST:
            self._request(session, piece, now)
        elif message.kind == rpc.NOTIFICATION and message.method == CANCELLED:
            self._cancel(session, message.params.get("requestId"))
        elif message.kind == rpc.BAD:
            self._send(session, rpc.error_line(message.id, message.code, message.text))

    def _request(self, session: Session, piece: Piece, now: float) -> None:
        message, method = piece.message, session.method_of(piece.message)
        if method.startswith("broker/") and not session.asks_only:
            self._broker_method(session, message, now)
            return
        if not session.counted:
            session.counted = True
            self.counters["sessions"] += 1
        self.lifecycle.work()
        if method == TOOLS_CALL:
            self._tools_call(session, piece, now)
        elif method == "ping":
            self._send(session, rpc.result_line(message.id, {}))
        elif method == INITIALIZE:
            if session.introduce(message.params.get("clientInfo")):
                self.effects.append(Log("info", session.began(), session))
            self._send(session, rpc.result_line(message.id, self.answers.initialize(message.body.get("params"))))
        elif method == TOOLS_LIST:
            self._pending_replies.ask_tools(session, message.id, now)
            self._settle_pending_replies(now)
        else:
            self._send(session, rpc.error_line(message.id, errors.METHOD_NOT_FOUND, f"Unknown method: {method}"))

    def _tools_call(self, session: Session, piece: Piece, now: float) -> None:
        message, raw = piece.message, piece.raw
        if self.state != BrokerState.SERVING:
            if not session.greeted:  # a shim sends it again to the next broker
                self._send(session, rpc.error_line(message.id, errors.NOT_EXECUTED, self.lifecycle.leaving_text))
            return
        rule = rule_of(message.params.get("name"), self.answers.offered)
        self.counters["calls"] += 1
        if session.read_only and not rule.read_only_ok and rule is not NO_SUCH_TOOL:
            self._send(session, read_only_line(message))
            return
        refusal = session.refusal(rule, len(raw), self.limits, self.dispatcher.scheduler.held) or refuse_call(
            session, message.params, rule, len(raw)
        )
        if refusal:
            self._send(session, rpc.error_line(message.id, *refusal))
            return
        self._calls += 1
        key = session.key(piece.part) if rule.writes else ""
        n, conn, flow, run_s = self._calls, session.conn, session.flow, self.limits.run_s
        call = call_of(message, raw, rule, n=n, conn=conn, flow=flow, key=key, run_s=run_s, now=now)
        self.counters["writes" if call.writes else "reads"] += 1
        session.add(message.key, call)
        self._progress.watch(session, message.key, call, message.params)
        self.guest_calls.submit(session, call, message.params)

    def _cancel(self, session: Session, id_: Any) -> None:
        if not rpc.is_id(id_):
            return
        key = rpc.key_of(id_)
        if calls := session.by_id.get(key):
            call = calls[0]
            self._give_up(call)
            session.remove(key, call)
        elif not self._pending_replies.cancel_tools(session.conn, id_):
            return  # some clients cancel every request, once it has been answered
        self.counters["cancelled"] += 1
        self._close_if_done(session)

    # -- answers

    def _send(self, session: Session, line: bytes) -> None:
        self._answer(session, Send(session.conn, line))

    def _answer(self, session: Session, effect: Send | SendStatus | SendWelcome | OpenPage) -> None:
        session.answered += 1
        self.effects.append(effect)
        self._close_if_done(session)

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
            if wrong := self._pending_replies.ask_outcomes(session, message, now):
                self._send(session, rpc.error_line(message.id, errors.INVALID_PARAMS, wrong))
            self._settle_pending_replies(now)
        else:
            answer = answer_admin(session, message, self.host)
            if answer.effect is None:
                self._lender.ask(session.conn, message, now)
            else:
                self._answer(session, answer.effect)
            if answer.close is not None:
                self.effects.append(answer.close)
            if answer.stop:
                self.drain(now, answer.stop, at_once=answer.at_once, again=answer.again)

    def _greet(self, session: Session, message: Message, now: float) -> None:
        params = message.params
        others = earlier_connections(params, self.sessions.values())
        verdict = self.host.judge(params, session, others, self.dispatcher.report.backend)
        if verdict.code:
            self._send(session, rpc.error_line(message.id, verdict.code, verdict.message))
            session.refused = True
            self.effects.append(Close(session.conn, f"hello refused: {verdict.message}"))
            return
        for other in others:
            self.effects.append(Close(other.conn, "the same client came back on a new connection"))
            self.closed(other.conn, now)
        greeted(session, params, verdict)
        self.lifecycle.work()
        with_mounts = not verdict.same_files and verdict.same_kernel
        welcome = self.host.welcome(verdict, bound=session.greeted)
        guest = session.origin is Origin.GUEST
        self._answer(session, SendWelcome(session.conn, message.id, welcome, with_mounts, guest))

    def _settle_pending_replies(self, now: float) -> None:
        for conn, line in [*self._pending_replies.settle(now), *self._lender.settle(now)]:
            self._send(self.sessions[conn], line)

    # -- time and the end

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.dispatcher.tick(now)
        self.effects += self._progress.due(now)
        if idle := self.lifecycle.idle_too_long(now):
            self.drain(now, idle)
        elif self.lifecycle.engine_idle(now):
            self.effects.extend(map(ControlEngine, self.dispatcher.supervisor.end(now, "idle for long", replace=False)))
        elif self.lifecycle.drained_too_long(now):
            self._leave()

    def settle(self, now: float) -> None:
        """Answer the pending replies that can be answered now. Call it after every event."""
        self._settle_pending_replies(now)
        self._drained(now)

    def _mark_idle(self, now: float) -> None:
        clients = (session.greeted or session.counted for session in self.sessions.values())  # looked at last of all
        if self.dispatcher.lent:
            self.lifecycle.work()
        elif not self.lifecycle.idle and self.dispatcher.scheduler.idle and not any(clients):
            self.lifecycle.rest(now)

    def next_deadline(self) -> float | None:
        """When to call `tick` next, or None."""
        parts = (self.dispatcher, self._pending_replies, self._lender, self.lifecycle, self._progress)
        return min((at for part in parts if (at := part.next_deadline()) is not None), default=None)

    def drain(self, now: float, reason: str, *, at_once: bool = False, again: bool = False) -> None:
        """Leave: no more calls are accepted, and running ones may finish within the drain time, unless `at_once`."""
        if self.state != BrokerState.SERVING:
            if at_once and self.state == BrokerState.DRAINING:
                self._leave()
            return
        self.lifecycle.drain(now, reason)
        self.dispatcher.holding = True
        self.effects += [Log("info", f"leaving: {reason}"), Retire(again)]
        unresumed = {conn for conn, session in self.sessions.items() if not session.greeted}
        self.dispatcher.withdraw_waiting(unresumed, self.lifecycle.leaving_text)
        if at_once:
            self._leave()
        else:
            self._drained(now)

    def _drained(self, now: float) -> None:
        if self.state == BrokerState.DRAINING and not self.dispatcher.scheduler.running:
            self._leave()
        elif self.state == BrokerState.SERVING:
            self._mark_idle(now)

    def _leave(self) -> None:
        if self.state != BrokerState.OVER:
            self.lifecycle.state = BrokerState.OVER
            for session in self.sessions.values():
                if not session.greeted:  # a shim asks the next broker
                    self._turn_away(session)
            self.effects.append(Quit(self.lifecycle.reason))

    def _turn_away(self, session: Session) -> None:
        for call in [call for calls in session.by_id.values() for call in calls]:
            self.dispatcher.abandon(call, self.lifecycle.leaving_text)
        for id_ in self._pending_replies.give_up_tools(session.conn):
            self._send(session, rpc.error_line(id_, errors.NOT_EXECUTED, self.lifecycle.leaving_text))
