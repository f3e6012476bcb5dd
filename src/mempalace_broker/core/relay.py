"""The shim as a pure machine: every request of the agent is answered exactly once, whatever becomes of brokers.

    agent --lines--> Relay --lines--> broker        hello first on every connection, then initialize and tools/list,
    agent <--lines-- Relay <--lines-- broker        after hello's answer all the rest

A call is WAITING until it is SENT. When the connection is lost, a read becomes WAITING again; a write becomes ASKING:
on the next connection its fate is asked (broker/outcomes), and only "not_started" makes it WAITING again. Calls that
came later keep behind it. What a broker does not answer in time is answered here, and its late answer is dropped.

Brokers that can't be reached fail the calls at once (`failed`), `initialize` and `tools/list` come from a cache then.
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ..errors import INVALID_REQUEST, METHOD_NOT_FOUND, NOT_EXECUTED, OUTCOME_UNKNOWN
from . import jsonrpc as rpc
from .framing import LineReader, TooLong
from .handshake import DONE, HELLO, NOT_STARTED, OUTCOMES, hello_request
from .inflight import (
    ASKING,
    CACHE_AFTER_S,
    GONE,
    INITIALIZE,
    NEVER,
    SENT,
    TOOLS_CALL,
    TOOLS_LIST,
    WAITING,
    Call,
    Limits,
    absolute_paths,
)
from .ledger import OWN, Ledger
from .outbox import Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .handshake import Identity
    from .jsonrpc import Message

MAX_CALLS = 10_000  # unanswered, of one agent
MAX_BATCH = 10_000  # elements
MAX_HELD = 16 * 1024 * 1024  # bytes of unanswered requests, beyond which no more are read
MAX_QUEUED = 1024 * 1024  # bytes not yet accepted by the other side
MAX_ANSWER = 320 * 1024 * 1024  # bytes of one answer: more than the engine's largest
MAX_TRIES = 5  # connections that one call may outlive: it may be what kills the broker
EOF_GRACE_S = 30.0  # what a one-shot client still waits for after it closed its end
ASK_GRACE_S = 30.0  # how long a write's fate stays open where no broker can be had
MAX_BACKOFF_S = 10.0

CANCELLED = "notifications/cancelled"
INITIALIZED = "notifications/initialized"
_REPLAY = "broker/initialize"
_OWN_KEYS = rpc.key_of(OWN)
_BROKER_METHODS = (INITIALIZE, TOOLS_LIST, TOOLS_CALL)
_INITIALIZED_LINE = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class Relay:
    """See the module. Times are monotonic seconds, handed in.

    Args:
        session: 32 hex digits, new for every shim. client, pid: who we are, for `status`.
        cwd, home: the agent's folders, for arguments that name files.
        read_cache: returns the content of the broker's cache of answers, None where there is none.

    Attributes:
        identity: the palace this shim was configured for; to be set before `connected`.
        to_agent, to_broker: bytes to be written; the caller takes them.
        notices: lines for stderr; the caller takes them.
        broken: why the open connection must be closed, "" if it needn't; the caller closes it and calls `lost`.
        established: whether hello was accepted on the open connection.
    """

    def __init__(
        self,
        *,
        session: str,
        client: str,
        pid: int,
        cwd: str,
        home: str,
        read_cache: Callable[[], bytes | None],
    ) -> None:
        self.identity: Identity | None = None
        self._names = (session, client, pid)
        self._cwd, self._home = cwd, home
        self._read_cache = read_cache
        self._from_agent = LineReader()
        self._from_broker = LineReader(MAX_ANSWER)
        self.to_agent = Outbox()
        self.to_broker = Outbox()
        self.notices: list[str] = []
        self.broken = ""
        self.limits = Limits()
        self._calls = Ledger()
        self._asked = 0  # the connection whose writes are being asked for, 0 none
        self._connection = self._ordinal = 0
        self._open = self.established = False
        self._warm = False
        self._failures = 0
        self._failure = (0, "")
        self._hopeless_since = NEVER  # since when nobody can be reached or started
        self._connect_at = 0.0
        self._initialize: bytes = b""
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
            and len(self._calls) < MAX_CALLS
            and self.to_agent.size < MAX_QUEUED
            and self.to_broker.size < MAX_QUEUED
        )

    @property
    def wants_broker(self) -> bool:
        """Whether to read from the broker: no, while the agent does not take its answers."""
        return self.to_agent.size < MAX_QUEUED

    def wants_connection(self, now: float) -> bool:
        """Whether a broker is needed now: at the start, and whenever something waits for one."""
        return (
            not self._open
            and now >= self._connect_at
            and (self._calls.live > 0 or not (self._connection or self._failures))
        )

    @property
    def finished(self) -> bool:
        """Whether the agent closed its end and is owed nothing any more; `to_agent` may still hold answers."""
        return self._eof_at != NEVER and not self._calls.live

    def next_deadline(self) -> float:
        """When `tick` is due, NEVER if it is not; early at worst."""
        retry = self._connect_at if self._calls.live and not self._open and self._failures else NEVER
        return min(self._due, retry)

    # -- the agent's side

    def agent_data(self, data: bytes, now: float) -> None:
        """Bytes of the agent, in any cut."""
        for line in self._from_agent.feed(data):
            if isinstance(line, TooLong):
                text = f"Invalid request: a line of more than {line.limit} bytes was skipped"
                self._error(None, INVALID_REQUEST, text)
            else:
                self._agent_message(rpc.parse(line), line, now)

    def agent_eof(self, now: float) -> None:
        """The agent sends no more. Half a line that may be left is not executed; what is under way is awaited."""
        self._eof_at = now
        self._due = min(self._due, now + EOF_GRACE_S)

    def _agent_message(self, message: Message, line: bytes, now: float) -> None:
        kind = message.kind
        if kind == rpc.REQUEST:
            self._request(message, line, now)
        elif kind == rpc.NOTIFICATION:
            self._notification(message, line)
        elif kind == rpc.BAD:
            self._error(message.id, message.code, message.text)
        elif kind == rpc.BATCH and len(message.body) > MAX_BATCH:
            self._error(None, INVALID_REQUEST, f"Invalid request: a batch of more than {MAX_BATCH} elements")
        elif kind == rpc.BATCH:
            for value in message.body:
                element = rpc.classify(value)
                self._agent_message(element, rpc.to_bytes(value) if element.method else b"", now)

    def _request(self, message: Message, line: bytes, now: float) -> None:
        method = message.method
        if method == "ping":
            self.to_agent.put(rpc.result_line(message.id, {})[:-1])
            return
        if method not in _BROKER_METHODS and not self.established:
            self._error(message.id, METHOD_NOT_FOUND, f"Unknown method: {method}")
            return
        if method == TOOLS_CALL and absolute_paths(message, self._cwd, self._home):
            line = rpc.to_bytes(message.body)
        call = Call(message, line, now)
        if method == INITIALIZE:
            self._initialize = line
        self._calls.add(call, message)
        self._due = min(self._due, self._due_of(call))
        if self._open and self._may_send(call):
            self._send_call(call, now)
        elif not self._open and self._hopeless_since != NEVER and now < self._connect_at:
            self._fail_waiting()

    def _notification(self, message: Message, line: bytes) -> None:
        if message.method == CANCELLED:
            self._cancel(message)
            return
        if message.method == INITIALIZED:
            self._initialized = True
        if self.established:
            self._send(line)

    def _cancel(self, message: Message) -> None:
        target = message.params.get("requestId")
        call = self._calls.find(rpc.key_of(target)) if rpc.is_id(target) else None
        if call is None:  # answered, or never heard of: some clients cancel after every call
            return
        if call.state == SENT:
            self._calls.excuse(call)
            self._withdraw(call)
        else:
            self._calls.forget(call)

    # -- the broker's side

    def connected(self, now: float) -> None:
        """A connection is open."""
        assert self.identity is not None, "no palace, no connection"
        self._connection += 1
        self._ordinal = 0
        self._open = True
        self._from_broker = LineReader(MAX_ANSWER)
        session, client, pid = self._names
        hello = hello_request(
            session=session, connection=self._connection, identity=self.identity, client=client, pid=pid
        )
        self._send(rpc.to_bytes(hello))
        waiting = [call for call in self._calls if self._may_send(call)]
        if self._initialize and not any(call.method == INITIALIZE for call in waiting):
            self._send(rpc.to_bytes({**rpc.load(self._initialize), "id": _REPLAY}))
        for call in waiting:
            self._send_call(call, now)

    def broker_data(self, data: bytes, now: float) -> None:
        """Bytes of the broker, in any cut."""
        for line in self._from_broker.feed(data):
            if self.broken:
                return
            if isinstance(line, TooLong):
                self.broken = f"the broker sent a line of more than {line.limit} bytes"
            else:
                self._broker_line(line, now)

    def lost(self, reason: str, now: float) -> None:
        """The connection is closed: what it carried is sent again, asked for, or waits."""
        if self.established:
            self.notices.append(f"connection to the broker lost ({reason}); going on with the next request")
        elif not self._failures or self._connect_at <= now:
            self._back_off(NOT_EXECUTED, f"the broker closed the connection at once ({reason}).", now)
        self._open = self.established = self._warm = False
        self.broken = ""
        self._asked = 0
        self.to_broker.clear()
        for call in self._calls:
            if call.state == GONE or call.cancelled:
                self._calls.forget(call)
            elif call.state == SENT:
                self._unsend(call, reason)
        self._due = min(self._due, now)

    def _unsend(self, call: Call, reason: str) -> None:
        if call.writes:
            self._calls.ask(call)
        elif call.tries >= MAX_TRIES:
            why = f"the broker was lost {call.tries} times while it had this call (last: {reason})."
            self._finish(call, *call.error(why))
        else:
            call.state = WAITING

    def failed(self, code: int, text: str, now: float) -> None:
        """No broker can be had at present; `text` says why, and what mends it."""
        self._back_off(code, text, now)
        self._hopeless_since = min(self._hopeless_since, now)
        self._fail_waiting()
        self._due = min(self._due, now)

    def _back_off(self, code: int, text: str, now: float) -> None:
        if self._failure[1] != text:
            self.notices.append(text)
        self._failures += 1
        self._failure = (code, text)
        self._connect_at = now + min(MAX_BACKOFF_S, 0.25 * 2 ** min(self._failures, 8))

    def _fail_waiting(self) -> None:
        code, text = self._failure
        for call in self._calls:
            if call.state == WAITING and not self._answer_from_cache(call):
                self._finish(call, *call.error(text, code=code))

    def _broker_line(self, line: bytes, now: float) -> None:
        found = rpc.find_id(line)
        if found is None:
            message = rpc.parse(line)
            if message.kind == rpc.NOTIFICATION and not message.method.startswith("broker/"):
                self.to_agent.put(line)
            elif message.kind == rpc.BAD:
                self.broken = "the broker sent something that is no JSON-RPC"
            if message.kind != rpc.RESPONSE:
                return
            key = message.key
        else:
            key = rpc.key_of(found[0])
        call = self._calls.get(key)
        if call is not None:
            self._answered(call, line)
        elif key.startswith(_OWN_KEYS):
            self._own_answer(key[1:], rpc.parse(line).body, now)

    def _answered(self, call: Call, line: bytes) -> None:
        if call.state == SENT:
            self.to_agent.put(call.answer(line))
            self._warm = self._warm or call.method == TOOLS_CALL
        self._calls.forget(call)

    def _own_answer(self, id_: str, body: Mapping[str, Any], now: float) -> None:
        result = body.get("result")
        if id_ == HELLO:
            if isinstance(result, dict):
                self._welcome(result, now)
            else:
                self._refused(body.get("error"), now)
        elif id_ == OUTCOMES and self._asked:
            told = result.get("outcomes") if isinstance(result, dict) else None
            self._settle(told if isinstance(told, dict) else {}, now)

    def _welcome(self, result: Mapping[str, Any], now: float) -> None:
        self.established = True
        if self._failures or self._connection > 1:
            self.notices.append("connected to the broker")
        if isinstance(result.get("notice"), str):
            self.notices.append(result["notice"])
        self._failures, self._failure, self._hopeless_since = 0, (0, ""), NEVER
        limits = result.get("limits")
        if isinstance(limits, dict):
            self.limits.learn(limits)
            self._due = min(self._due, now)
        if self._initialized:
            self._send(_INITIALIZED_LINE)
        self._go_on(now)

    def _refused(self, error: object, now: float) -> None:
        error = error if isinstance(error, dict) else {}
        code, text = error.get("code"), error.get("message")
        self.broken = "hello was refused"
        for call in self._calls:
            if call.state == SENT:  # nothing but initialize and tools/list goes out before hello's answer
                call.state = WAITING
        self.failed(code if isinstance(code, int) else NOT_EXECUTED, str(text or "the broker refused us."), now)

    def _go_on(self, now: float) -> None:
        """Ask for the fate of the oldest lost writes, or send what waits."""
        if not self.established or self._asked:
            return
        if not self._calls.asking:
            for call in [call for call in self._calls if call.state == WAITING]:
                self._send_call(call, now)
            return
        self._asked = next(iter(self._calls.asking.values())).connection
        asked = [call for call in self._calls.asking.values() if call.connection == self._asked]
        params = {
            "connection": self._asked,
            "lines": [call.ordinal for call in asked],
            "age_s": now - min(call.sent_at for call in asked),
        }
        self._send(rpc.to_bytes({"jsonrpc": "2.0", "id": OUTCOMES, "method": OUTCOMES, "params": params}))

    def _settle(self, told: Mapping[str, Any], now: float) -> None:
        asked, self._asked = self._asked, 0
        for call in [call for call in self._calls.asking.values() if call.connection == asked]:
            fate = told.get(str(call.ordinal))
            state = fate.get("state") if isinstance(fate, dict) else None
            if state == NOT_STARTED:
                del self._calls.asking[call.wire]
                call.state = WAITING
            elif state == DONE and isinstance(fate, dict) and isinstance(fate.get("response"), dict):
                self.to_agent.put(rpc.to_bytes({**fate["response"], "id": call.id}))
                self._calls.forget(call)
            elif state == DONE:
                text = f"{call.tool} was executed, but its answer was lost. Do not send it again."
                self._finish(call, OUTCOME_UNKNOWN, text)
            else:
                self._finish(call, *call.unknown("The connection to the broker was lost while it was under way."))
        self._go_on(now)

    # -- sending

    def _may_send(self, call: Call) -> bool:
        if call.state != WAITING:
            return False
        return (self.established and not self._calls.asking) or call.method in (INITIALIZE, TOOLS_LIST)

    def _send(self, line: bytes) -> None:
        self._ordinal += 1
        self.to_broker.put(line)

    def _send_call(self, call: Call, now: float) -> None:
        self._send(call.line)
        call.state = SENT
        call.connection, call.ordinal, call.sent_at = self._connection, self._ordinal, now
        call.tries += 1

    def _withdraw(self, call: Call) -> None:
        id_ = call.id if call.wire == call.key else call.wire[1:]
        note = {"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": id_}}
        self._send(rpc.to_bytes(note))

    # -- answering by ourselves

    def _error(self, id_: object, code: int, text: str) -> None:
        self.to_agent.put(rpc.error_line(id_, code, text)[:-1])

    def _finish(self, call: Call, code: int, text: str) -> None:
        self._error(call.id, code, text)
        if call.state == SENT:
            self._withdraw(call)
            self._calls.bury(call)
        else:
            self._calls.forget(call)

    def _answer_from_cache(self, call: Call) -> bool:
        if call.method not in (INITIALIZE, TOOLS_LIST):
            return False
        from .fallback import initialize_result, read_cache, tools_result

        cache = read_cache(self._read_cache())
        result = initialize_result(call.params, cache) if call.method == INITIALIZE else tools_result(cache)
        if result is None:
            return False
        self.to_agent.put(rpc.result_line(call.id, result)[:-1])
        if call.state == SENT:
            self._calls.bury(call)
        else:
            self._calls.forget(call)
        return True

    # -- time

    def _due_of(self, call: Call) -> float:
        if call.state == GONE:
            return NEVER
        due = call.arrived + self.limits.span(None if call.cancelled else call.own_s, warm=self._warm)
        if call.state == ASKING and self._hopeless_since != NEVER:
            due = min(due, self._hopeless_since + ASK_GRACE_S)
        if call.cacheable:
            due = min(due, call.arrived + CACHE_AFTER_S)
        return due

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self._due:
            return
        ending = now >= self._eof_at + EOF_GRACE_S
        for call in self._calls:
            if call.cacheable and now >= call.arrived + CACHE_AFTER_S:
                call.cacheable = False
                if self._answer_from_cache(call):
                    continue
            if call.state != GONE and (ending or now >= self._due_of(call)):
                self._expire(call, now)
        self._due = min((self._due_of(call) for call in self._calls), default=NEVER)
        if self._calls.live and self._eof_at != NEVER:
            self._due = min(self._due, self._eof_at + EOF_GRACE_S)
        self._go_on(now)

    def _expire(self, call: Call, now: float) -> None:
        waited = f"There was no answer within {now - call.arrived:.0f} s."
        if call.cancelled:
            self._calls.bury(call)
        elif call.state == ASKING or (call.state == SENT and call.writes):
            self._finish(call, *call.unknown(f"{waited} {self._failure[1]}".rstrip()))
        else:
            self._finish(call, *call.error(self._failure[1] or f"{waited} See `mempalace-broker status`."))
