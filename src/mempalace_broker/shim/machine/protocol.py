"""The shim as a pure machine: every request of the agent is answered exactly once, whatever becomes of brokers.

    agent --lines--> shim  --lines--> broker        hello first on every connection, then initialize and tools/list,
    agent <--lines-- shim  <--lines-- broker        after hello's answer everything else

Bytes, time and facts come in as events; bytes (`to_agent`, `to_broker`), lines for stderr (`notices`) and questions
about files (`effects`) come out. delivery.py says what happens to a request when a broker dies. A request that a broker
does not answer in time is answered here, and the late answer is dropped. While no broker can be reached, requests fail
at once (`failed`), and `initialize` and `tools/list` are answered from a cache. `ping` is always answered here.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import INVALID_REQUEST, METHOD_NOT_FOUND, NOT_EXECUTED, OTHER_PALACE
from ...protocol import jsonrpc as rpc
from ...protocol.jsonrpc import CANCELLED, INITIALIZE, INITIALIZED, TOOLS_CALL, TOOLS_LIST
from ...protocol.tools import rule_for
from .agent_stream import TOO_DEEP, AgentStream
from .broker_connection import Answer, BrokerConnection, Notification, Outcomes, Refusal, Welcome
from .delivery import Delivery
from .effects import ReadAnswers, VerifyPalace
from .pending_requests import (
    CACHE_AFTER_S,
    NO_DEADLINE,
    OUR_IDS,
    BrokerLimits,
    PendingRequest,
    RequestState,
)
from .reconnect import ReconnectPolicy, fault_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ...protocol.constant_answers import ConstantAnswers
    from ...protocol.jsonrpc import Message
    from ...protocol.palace import FileView, PalaceIdentity
    from .broker_connection import Event
    from .effects import Effect

MAX_UNANSWERED = 10_000  # requests of one agent
MAX_HELD = 16 * 1024 * 1024  # bytes of unanswered requests, beyond which no more are read
MAX_QUEUED = 1024 * 1024  # bytes not yet accepted by the other side
EOF_GRACE_S = 30.0  # how long a one-shot client that closed its end still waits for answers
FLUSH_S = 5.0  # and how long it may take to read them

_EARLY = (INITIALIZE, TOOLS_LIST)
_INITIALIZED_LINE = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class ShimProtocol:
    """One session of one agent. Times are monotonic seconds, handed in.

    Args:
        session, secret: 32 hex digits each, new for every shim. client, pid: who we are, for `status`.
        cwd, home: the agent's folders, for arguments that name files.
        limits: in force until a broker says its own. read_only: no tool that writes is listed or run.

    Attributes:
        to_agent, connection.to_broker: bytes to be written; the caller takes them.
        effects: what the caller must find out, in this order; it takes them.
        notices: lines for stderr; the caller takes them.
        connection: where it is `broken`, the caller closes it and calls `lost`.
        reconnect: when to try the next connection.
    """

    def __init__(
        self,
        *,
        session: str,
        secret: str,
        client: str,
        pid: int,
        cwd: str,
        home: str,
        limits: BrokerLimits | None = None,
        read_only: bool = False,
    ) -> None:
        self._read_only = read_only
        self._cwd = cwd
        self._home = home
        self._limits = limits or BrokerLimits()
        self._agent = AgentStream()
        self.to_agent = self._agent.out
        self.effects: list[Effect] = []
        self.connection = BrokerConnection(session, secret, client, pid, read_only=read_only, home=home)
        self.reconnect = ReconnectPolicy()
        self.notices = self.reconnect.notices
        self._delivery = Delivery(self._agent, self.connection, self.effects)
        self._requests = self._delivery.requests
        self._initialize = b""  # the agent's line, to be sent again to every broker
        self._initialized = False
        self._reading_answers = False
        self._impatient: list[PendingRequest] = []  # these waited long enough for a broker: the cache may answer them
        self._eof_at = NO_DEADLINE
        self._due = NO_DEADLINE

    # -- what the caller asks

    @property
    def wants_agent(self) -> bool:
        """Whether to read from the agent: no, while too much of what it sent or is owed is still here."""
        return (
            self._eof_at == NO_DEADLINE
            and self._requests.held_bytes < MAX_HELD
            and self._requests.unanswered < MAX_UNANSWERED
            and self.to_agent.size < MAX_QUEUED
            and self.connection.to_broker.size < MAX_QUEUED
        )

    @property
    def wants_broker(self) -> bool:
        """Whether to read from the broker: no, while the agent does not take its answers."""
        return self.to_agent.size < MAX_QUEUED

    def wants_connection(self, now: float) -> bool:
        """Whether a broker is needed now: at the start, and whenever a request waits for one."""
        if self.connection.up or now < self.reconnect.retry_at:
            return False
        return self._requests.unanswered > 0 or not self.reconnect.tried

    def finished(self, now: float) -> bool:
        """Whether the agent closed its end and has all its answers, or takes too long to read them."""
        if self._eof_at == NO_DEADLINE:
            return False
        return not (self._requests.unanswered or self.to_agent.size) or now >= self._eof_at + EOF_GRACE_S + FLUSH_S

    def next_deadline(self, now: float) -> float:
        """When `tick` is due if nothing else happens, NO_DEADLINE if never; possibly too early, never too late."""
        due = self._due
        if not self.connection.up and self._requests.unanswered and self.reconnect.retry_at > now:
            due = min(due, self.reconnect.retry_at)
        return due if self._eof_at == NO_DEADLINE else min(due, self._eof_at + EOF_GRACE_S + FLUSH_S)

    # -- events of the agent

    def agent_data(self, data: bytes, now: float) -> None:
        """Bytes of the agent arrived, in any cut."""
        self._take(self._agent.read(data), now)

    def agent_eof(self, now: float) -> None:
        """The agent sends no more; what is under way is awaited."""
        self._take(self._agent.end(), now)
        self._eof_at = now
        self._due = min(self._due, now + EOF_GRACE_S)

    def _take(self, messages: Iterator[tuple[Message, bytes]], now: float) -> None:
        failure: Exception | None = None
        for message, line in messages:
            open_before = self._requests.unanswered
            try:
                if message.kind == rpc.NOTIFICATION:
                    self._notification(message, line)
                elif message.kind == rpc.REQUEST:
                    self._request(message, line, now)
            except RecursionError:  # its line had to be written anew; it is not in the table yet
                self._agent.error(message.id, INVALID_REQUEST, TOO_DEEP)
            except Exception as exc:  # noqa: BLE001 - the messages behind it must not be lost with it
                failure = exc
                if message.kind == rpc.REQUEST and self._requests.unanswered == open_before:
                    self._agent.error(message.id, NOT_EXECUTED, fault_text(exc))
        if failure is not None:
            raise failure

    def _request(self, message: Message, line: bytes, now: float) -> None:
        method = message.method
        if method == "ping":
            self._agent.result(message.id, {})
            return
        ours = method.startswith(OUR_IDS)  # between shim and broker only: an agent must not stop what others use
        if ours or (method != TOOLS_CALL and method not in _EARLY and not self.connection.established):
            self._agent.error(message.id, METHOD_NOT_FOUND, f"Unknown method: {method}")
            return
        if method == TOOLS_CALL and rule_for(message.params.get("name")).paths:
            from .path_rewriter import make_absolute

            if make_absolute(message, cwd=self._cwd, home=self._home):
                line = rpc.to_bytes(message.body)
        request = PendingRequest(message, line, now)
        self._requests.add(request, message)
        if method == INITIALIZE:
            self._initialize = line
        self._due = min(self._due, self._due_of(request))
        if self._delivery.may_send(request):
            self._delivery.send(request, now)
        elif not self.connection.up and self.reconnect.hopeless(now):
            self._fail_waiting()

    def _notification(self, message: Message, line: bytes) -> None:
        if message.method == CANCELLED:
            target = message.params.get("requestId")
            request = self._requests.find(rpc.key_of(target)) if rpc.is_id(target) else None
            if request is not None and request.method != INITIALIZE:  # MCP forbids to cancel that one
                self._delivery.cancel(request)
            return
        self._initialized |= message.method == INITIALIZED
        if self.connection.established:
            self.connection.send(line)

    # -- events of the broker

    def connected(self, identity: PalaceIdentity, view: FileView | None, now: float) -> None:
        """A connection is open. `identity`: our palace; `view`: how this side sees the files."""
        self.connection.opened(identity, view)
        self.reconnect.opened(now)
        early = [request for request in self._requests if self._delivery.may_send(request)]
        if self._initialize and not any(request.method == INITIALIZE for request in early):
            self.connection.replay(self._initialize)
        for request in early:
            self._delivery.send(request, now)

    def broker_data(self, data: bytes, now: float) -> None:
        """Bytes of the broker arrived, in any cut."""
        for event in self.connection.read(data):
            self._handle(event, now)

    def _handle(self, event: Event, now: float) -> None:
        if isinstance(event, Answer):
            self._delivery.answered(event.key, event.line)
        elif isinstance(event, Notification):
            self.to_agent.put_line(event.line)
        elif isinstance(event, Outcomes):
            self._delivery.settle(event.connection, event.outcomes, now)
        elif isinstance(event, Welcome):
            self.effects.append(VerifyPalace(event.result))
        elif isinstance(event, Refusal):
            self._refused(event.code, event.text, now)

    def palace_verified(self, problem: str, now: float) -> None:
        """The caller knows whether the broker is our palace's: `problem` says why not, "" if it is."""
        if not self.connection.verifying:
            return  # it was lost meanwhile
        if problem:
            self.connection.reject("it is not the broker of this palace")
            self._refused(OTHER_PALACE, problem, now)
            return
        self._welcomed(self.connection.accept(), now)
        self.broker_data(b"", now)

    def _welcomed(self, welcome: Mapping[str, Any], now: float) -> None:
        self.reconnect.welcomed()
        if isinstance(welcome.get("notice"), str):
            self.notices.append(welcome["notice"])
        limits = welcome.get("limits")
        if isinstance(limits, dict):
            self._limits.update(limits)
            self._due = min(self._due, now)
        if self._initialized:
            self.connection.send(_INITIALIZED_LINE)
        self._delivery.proceed(now)

    def _refused(self, code: int, text: str, now: float) -> None:
        self._delivery.hello_refused()
        self.failed(code, text, now)

    def paths_translated(self, key: str, names: Mapping[str, str | None], now: float) -> None:
        """The caller knows the broker's names of a request's paths; None or a missing one: it can't see that file."""
        self._delivery.translated(key, names, now)

    def lost(self, reason: str, now: float) -> None:
        """The connection is closed: what it carried is sent again, asked for, or waits."""
        self.reconnect.lost(reason, now, welcomed=self.connection.established)
        self.connection.closed()
        self._delivery.connection_lost(reason, now)
        self._due = min(self._due, now)

    # -- no broker

    def failed(self, code: int, text: str, now: float) -> None:
        """No broker can be had at present; `text` says why, and the hint."""
        self.reconnect.failed(code, text, now)
        self._fail_waiting()
        self._due = min(self._due, now)

    def fault(self, exc: Exception, now: float) -> None:
        """This program failed somewhere: every open request ends with one error. The caller closes the connection."""
        why = fault_text(exc)
        self.effects.clear()
        self._impatient.clear()
        self._reading_answers = False
        self._delivery.give_out(why)
        self.connection.closed()
        self.reconnect.failed(NOT_EXECUTED, why, now)

    def _fail_waiting(self) -> None:
        """Fail the requests that wait for a broker; if the cache may answer one of them, read it first."""
        if self._reading_answers:
            return  # they fail when it has been read
        waiting = [request for request in self._requests if request.state == RequestState.WAITING]
        if any(request.early for request in waiting):
            self._read_answers()
        else:
            for request in waiting:
                self._fail(request)

    def _read_answers(self) -> None:
        if not self._reading_answers:
            self._reading_answers = True
            self.effects.append(ReadAnswers())

    def answers_read(self, data: bytes | None, now: float) -> None:
        """The caller read the cache of answers: `data` is its content, None if there is none."""
        from ...protocol.constant_answers import ConstantAnswers

        answers = ConstantAnswers.decode(data)
        self._reading_answers = False
        impatient, self._impatient = self._impatient, []
        for request in impatient:
            self._answer_from(answers, request)
        if self.reconnect.hopeless(now):
            for request in self._requests:
                if request.state == RequestState.WAITING and not self._answer_from(answers, request):
                    self._fail(request)

    def _answer_from(self, answers: ConstantAnswers, request: PendingRequest) -> bool:
        result = None
        if request.early and request.awaited:
            result = answers.result(request.method, request.params, read_only=self._read_only)
        if result is not None:
            self._delivery.succeed(request, result)
        return result is not None

    def _fail(self, request: PendingRequest) -> None:
        self._delivery.fail(request, *request.error(self.reconnect.why, code=self.reconnect.code))

    # -- time

    def _due_of(self, request: PendingRequest) -> float:
        return request.due(self._limits, hopeless_since=self.reconnect.hopeless_since)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._due:
            return
        ending = now >= self._eof_at + EOF_GRACE_S
        for request in self._requests:
            if request.cacheable and now >= request.arrived + CACHE_AFTER_S:
                request.cacheable = False
                self._impatient.append(request)
                self._read_answers()
            elif request.state != RequestState.OVER and (ending or now >= self._due_of(request)):
                self._delivery.expire(request, self.reconnect.why, now)
        self._due = min((self._due_of(request) for request in self._requests), default=NO_DEADLINE)
        if self._requests.unanswered:
            self._due = min(self._due, self._eof_at + EOF_GRACE_S)
        self._delivery.proceed(now)
