"""The shim as a pure machine: every request of the agent is answered exactly once, whatever becomes of brokers.

    agent --lines--> shim  --lines--> broker        hello first on every connection, then initialize and tools/list,
    agent <--lines-- shim  <--lines-- broker        after hello's answer all the rest

A call is WAITING until it is SENT. When the connection is lost, a read becomes WAITING again; a write becomes ASKING:
on the next connection its fate is asked (broker/outcomes), and only "not_started" makes it WAITING again. Calls that
came later keep behind it. What a broker does not answer in time is answered here, and its late answer is dropped.

Brokers that can't be reached fail the calls at once (`failed`), `initialize` and `tools/list` come from a cache then.
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, OTHER_PALACE, OUTCOME_UNKNOWN
from ...protocol import jsonrpc as rpc
from ...protocol.framing import LineReader, TooLong
from ...protocol.hello import WriteOutcome
from ...protocol.mcp import CANCELLED, INITIALIZE, INITIALIZED, TOOLS_CALL, TOOLS_LIST
from ...protocol.write_buffer import WriteBuffer
from .broker_connection import ANSWER, FATES, INITIALIZED_LINE, NOTE, REFUSED, WELCOME, BrokerConnection
from .pending_request import (
    ASKING,
    CACHE_AFTER_S,
    GONE,
    NEVER,
    SENT,
    WAITING,
    BrokerLimits,
    PendingRequest,
)
from .pending_requests import PendingRequests
from .reconnect import ReconnectPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ...protocol.jsonrpc import Message
    from .path_rewriter import PathRewriter

MAX_CALLS = 10_000  # unanswered, of one agent
MAX_BATCH = 10_000  # elements
MAX_HELD = 16 * 1024 * 1024  # bytes of unanswered requests, beyond which no more are read
MAX_QUEUED = 1024 * 1024  # bytes not yet accepted by the other side
MAX_TRIES = 5  # connections that one call may outlive: it may be what kills the broker
EOF_GRACE_S = 30.0  # what a one-shot client still waits for after it closed its end
FLUSH_S = 5.0  # and how long it may take to read it

_EARLY = (INITIALIZE, TOOLS_LIST)  # harmless before hello's answer, and with answers in a cache


class ShimProtocol:
    """See the module. Times are monotonic seconds, handed in.

    Args:
        session: 32 hex digits, new for every shim. client, pid: who we are, for `status`.
        caller: knows the agent's folders, for arguments that name files.
        read_cache: returns the content of the broker's cache of answers, None where there is none.

    Attributes:
        to_agent, link.to_broker: bytes to be written; the caller takes them.
        contact: its `notices` are for stderr; the caller takes them.
        doubt: says of a welcome why that broker is not for us, "" if it is.
        link: the connection; where it is `broken`, the caller closes it and calls `lost`.
    """

    def __init__(
        self,
        *,
        session: str,
        client: str,
        pid: int,
        rewriter: PathRewriter,
        read_cache: Callable[[], bytes | None],
    ) -> None:
        self._rewriter = rewriter
        self._read_cache = read_cache
        self.doubt: Callable[[Mapping[str, Any]], str] = lambda _welcome: ""
        self._from_agent = LineReader()
        self.to_agent = WriteBuffer()
        self.connection = BrokerConnection(session, client, pid)
        self.reconnect = ReconnectPolicy()
        self.limits = BrokerLimits()
        self._calls = PendingRequests()
        self._initialize = b""
        self._initialized = False
        self._eof_at = NEVER
        self._due = NEVER

    # -- what the loop around it asks

    @property
    def wants_agent(self) -> bool:
        """Whether to read from the agent: no, while too much of what it sent or is owed is still here."""
        return (
            self._eof_at == NEVER
            and self._calls.held < MAX_HELD
            and self._calls.live < MAX_CALLS
            and self.to_agent.size < MAX_QUEUED
            and self.connection.to_broker.size < MAX_QUEUED
        )

    @property
    def wants_broker(self) -> bool:
        """Whether to read from the broker: no, while the agent does not take its answers."""
        return self.to_agent.size < MAX_QUEUED

    def wants_connection(self, now: float) -> bool:
        """Whether a broker is needed now: at the start, and whenever something waits for one."""
        if self.connection.up or now < self.reconnect.retry_at:
            return False
        return self._calls.live > 0 or not self.reconnect.tried

    def finished(self, now: float) -> bool:
        """Whether the agent closed its end and has all its answers, or takes too long to read them."""
        if self._eof_at == NEVER:
            return False
        return not (self._calls.live or self.to_agent.size) or now >= self._eof_at + EOF_GRACE_S + FLUSH_S

    def next_deadline(self, now: float) -> float:
        """When something is to be done without any other event, NEVER if nothing is; early at worst."""
        due = self._due
        if not self.connection.up and self._calls.live and self.reconnect.retry_at > now:
            due = min(due, self.reconnect.retry_at)
        return due if self._eof_at == NEVER else min(due, self._eof_at + EOF_GRACE_S + FLUSH_S)

    # -- the agent's side

    def agent_data(self, data: bytes, now: float) -> None:
        """Bytes of the agent, in any cut."""
        for line in self._from_agent.feed(data):
            if isinstance(line, TooLong):
                text = f"Invalid request: a line of more than {line.limit} bytes was skipped"
                self._error(None, INVALID_REQUEST, text)
                continue
            message = rpc.parse(line)
            if message.kind == rpc.BATCH:
                self._batch(message.body, now)
            else:
                self._agent_message(message, line, now)

    def agent_eof(self, now: float) -> None:
        """The agent sends no more. Half a line that may be left is not executed; what is under way is awaited."""
        self._eof_at = now
        self._due = min(self._due, now + EOF_GRACE_S)

    def _batch(self, values: list[Any], now: float) -> None:
        if len(values) > MAX_BATCH:
            self._error(None, INVALID_REQUEST, f"Invalid request: a batch of more than {MAX_BATCH} elements")
            return
        for value in values:
            message = rpc.classify(value)
            try:
                line = rpc.to_bytes(value) if message.method else b""
            except RecursionError:
                self._error(message.id, INVALID_REQUEST, "Invalid request: nested too deeply")
            else:
                self._agent_message(message, line, now)

    def _agent_message(self, message: Message, line: bytes, now: float) -> None:
        if message.kind == rpc.REQUEST:
            try:
                self._request(message, line, now)
            except RecursionError:  # it had to be written anew; nothing was noted yet
                self._error(message.id, INVALID_REQUEST, "Invalid request: nested too deeply")
        elif message.kind == rpc.NOTIFICATION:
            self._notification(message, line)
        elif message.kind == rpc.BAD:
            self._error(message.id, message.code, message.text)

    def _request(self, message: Message, line: bytes, now: float) -> None:
        method = message.method
        if method == "ping":
            self.to_agent.put(rpc.result_line(message.id, {}))
            return
        ours = method.startswith("broker/")  # between shim and broker only: an agent must not stop what others use
        if ours or (method != TOOLS_CALL and method not in _EARLY and not self.connection.established):
            self._error(message.id, METHOD_NOT_FOUND, f"Unknown method: {method}")
            return
        if method == TOOLS_CALL and self._rewriter.absolute(message):
            line = rpc.to_bytes(message.body)
        call = PendingRequest(message, line, now)
        self._calls.add(call, message)
        if method == INITIALIZE:
            self._initialize = line
        self._due = min(self._due, self._due_of(call))
        if self._may_send(call):
            self._send_call(call, now)
        elif not self.connection.up and self.reconnect.hopeless(now):
            self._fail_waiting()

    def _notification(self, message: Message, line: bytes) -> None:
        if message.method == CANCELLED:
            self._cancel(message)
            return
        if message.method == INITIALIZED:
            self._initialized = True
        if self.connection.established:
            self.connection.send(line)

    def _cancel(self, message: Message) -> None:
        target = message.params.get("requestId")
        call = self._calls.find(rpc.key_of(target)) if rpc.is_id(target) else None
        if call is None:  # answered, or never heard of: some clients cancel after every call
            return
        if call.state != SENT:
            self._calls.forget(call)
            return
        self._calls.excuse(call)
        self.connection.cancel(call)

    # -- the broker's side

    def connected(self, now: float) -> None:
        """A connection is open."""
        self.connection.opened()
        self.reconnect.opened(now)
        early = [call for call in self._calls if self._may_send(call)]
        if self._initialize and not any(call.method == INITIALIZE for call in early):
            self.connection.replay(self._initialize)
        for call in early:
            self._send_call(call, now)

    def broker_data(self, data: bytes, now: float) -> None:
        """Bytes of the broker, in any cut."""
        for what, which, said in self.connection.read(data):
            if what == ANSWER:
                self._answered(which, said)
            elif what == WELCOME:
                self._welcome(said, now)
            elif what == REFUSED:
                self._refused(which, said, now)
            elif what == FATES:
                self._settle(which, said, now)
            elif what == NOTE:
                self.to_agent.put_line(said)

    def lost(self, reason: str, now: float) -> None:
        """The connection is closed: what it carried is sent again, asked for, or waits."""
        self.reconnect.lost(reason, now, welcomed=self.connection.established)
        self.connection.closed()
        for call in self._calls:
            if not call.owed:
                self._calls.forget(call)
            elif call.state == SENT:
                self._recall(call, reason, now)
        self._due = min(self._due, now)

    def _recall(self, call: PendingRequest, reason: str, now: float) -> None:
        if call.writes:
            self._calls.ask(call)
        else:
            self._wait_again(call, reason, now)

    def _wait_again(self, call: PendingRequest, reason: str, now: float) -> None:
        """It was sent and was not executed, or does no harm twice."""
        call.state = WAITING
        call.since = now
        self._calls.asking.pop(call.wire, None)
        if call.tries >= MAX_TRIES:
            why = f"{call.tries} connections were lost while it was under way (the last one: {reason})."
            self._finish(call, *call.error(why))

    def failed(self, code: int, text: str, now: float) -> None:
        """No broker can be had at present; `text` says why, and what mends it."""
        self.reconnect.failed(code, text, now)
        self._fail_waiting()
        self._due = min(self._due, now)

    def _fail_waiting(self) -> None:
        for call in self._calls:
            if call.state == WAITING and not self._answer_from_cache(call):
                self._finish(call, *call.error(self.reconnect.why, code=self.reconnect.code))

    def _answered(self, key: str, line: bytes) -> None:
        call = self._calls.get(key)
        if call is None or call.state not in (SENT, GONE):
            return
        if call.state == SENT:
            self.to_agent.put_line(call.answer(line))
        self._calls.forget(call)

    def _welcome(self, result: Mapping[str, Any], now: float) -> None:
        if doubt := self.doubt(result):
            self.connection.broken, self.connection.established = "it is not the broker of this palace", False
            self._refused(OTHER_PALACE, doubt, now)
            return
        self.reconnect.welcomed()
        if isinstance(result.get("notice"), str):
            self.reconnect.notices.append(result["notice"])
        limits = result.get("limits")
        if isinstance(limits, dict):
            self.limits.learn(limits)
            self._due = min(self._due, now)
        if self._initialized:
            self.connection.send(INITIALIZED_LINE)
        self._go_on(now)

    def _refused(self, code: int, text: str, now: float) -> None:
        """Nothing but `initialize` and `tools/list` went out before hello's answer: nothing was executed."""
        for call in self._calls:
            if call.owed and call.state == SENT:
                call.state = WAITING
        self.failed(code, text, now)

    def _go_on(self, now: float) -> None:
        """Ask for the fate of the oldest lost writes, or send what waits."""
        if not self.connection.established or self.connection.asked:
            return
        if self._calls.asking:
            self.connection.ask(self._calls.asking.values(), now)
            return
        for call in self._calls:
            if call.state == WAITING:
                self._send_call(call, now)

    def _settle(self, connection: int, fates: Mapping[str, Any], now: float) -> None:
        for call in [call for call in self._calls.asking.values() if call.connection == connection]:
            fate = fates.get(str(call.ordinal))
            self._settle_one(call, fate if isinstance(fate, dict) else {}, now)
        self._go_on(now)

    def _settle_one(self, call: PendingRequest, fate: Mapping[str, Any], now: float) -> None:
        state, response = fate.get("state"), fate.get("response")
        if state == WriteOutcome.NOT_STARTED:
            self._wait_again(call, "it had not been started", now)
        elif state != WriteOutcome.DONE:
            self._finish(call, *call.unknown("The connection to the broker was lost while it was under way."))
        elif isinstance(response, dict):
            self.to_agent.put_line(rpc.to_bytes({**response, "id": call.id}))
            self._calls.forget(call)
        else:
            text = f"{call.tool} was executed, but its answer was lost. Do not send it again."
            self._finish(call, OUTCOME_UNKNOWN, text)

    # -- sending

    def _may_send(self, call: PendingRequest) -> bool:
        if call.state != WAITING or not self.connection.up:
            return False
        return call.method in _EARLY or (self.connection.established and not self._calls.asking)

    def _send_call(self, call: PendingRequest, now: float) -> None:
        line, refused = call.line, ""
        if self.connection.files and call.rule.paths:
            line, refused = self._rewriter.outgoing(call, self.connection.files)
        if refused:
            self._finish(call, INVALID_PARAMS, f"{call.tool} was not executed: {refused}")
            return
        call.ordinal = self.connection.send(line)
        call.connection, call.sent_at, call.state = self.connection.number, now, SENT
        call.tries += 1

    # -- answering by ourselves

    def _error(self, id_: object, code: int, text: str) -> None:
        self.to_agent.put(rpc.error_line(id_, code, text))

    def _finish(self, call: PendingRequest, code: int, text: str) -> None:
        self._error(call.id, code, text)
        if call.state == SENT:
            self.connection.cancel(call)
        self._calls.done(call)

    def _answer_from_cache(self, call: PendingRequest) -> bool:
        if call.method not in _EARLY:
            return False
        from ...protocol.constant_answers import constant_result

        result = constant_result(call.method, call.params, self._read_cache())
        if result is None:
            return False
        self.to_agent.put(rpc.result_line(call.id, result))
        self._calls.done(call)
        return True

    # -- time

    def _due_of(self, call: PendingRequest) -> float:
        return call.due(self.limits, hopeless_since=self.reconnect.hopeless_since)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._due:
            return
        ending = now >= self._eof_at + EOF_GRACE_S
        for call in self._calls:
            if call.cacheable and now >= call.arrived + CACHE_AFTER_S:
                call.cacheable = False
                self._answer_from_cache(call)
            if call.state != GONE and (ending or now >= self._due_of(call)):
                self._expire(call, now)
        self._due = min((self._due_of(call) for call in self._calls), default=NEVER)
        if self._calls.live:
            self._due = min(self._due, self._eof_at + EOF_GRACE_S)
        self._go_on(now)

    def _expire(self, call: PendingRequest, now: float) -> None:
        waited = f"There was no answer within {now - call.arrived:.0f} s."
        if call.cancelled:
            self._calls.done(call)
        elif call.state == ASKING or (call.state == SENT and call.writes):
            self._finish(call, *call.unknown(f"{waited} {self.reconnect.why}".rstrip()))
        else:
            self._finish(call, *call.error(self.reconnect.why or f"{waited} See `mempalace-broker status`."))
