"""Requests on their way to a broker: sent in order, and taken care of when the connection that carried them is lost.

A request is WAITING until it is SENT. When the connection is lost, a read becomes WAITING again; a write becomes LOST:
the next broker is asked for its outcome (broker/outcomes), and only "not_started" makes it WAITING again. Requests that
came later stay behind it. Where the broker sees other files, a request with paths is TRANSLATING until their names are
known, and later requests stay behind it too.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...errors import INVALID_PARAMS, OUTCOME_UNKNOWN
from ...protocol import jsonrpc as rpc
from ...protocol.hello import WriteOutcome
from .effects import TranslatePaths
from .pending_requests import PendingRequests, RequestState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .agent_stream import AgentStream
    from .broker_connection import BrokerConnection
    from .effects import Effect
    from .pending_requests import PendingRequest

MAX_TRIES = 5  # connections that one request may outlive: it may be what kills the broker


class Delivery:
    """Owns the table of requests and moves them between their states.

    Args:
        agent: gets the answers. connection: takes the lines. effects: where TranslatePaths is put.

    Attributes:
        requests: the table.
    """

    __slots__ = ("_agent", "_connection", "_effects", "_translating", "requests")

    def __init__(self, agent: AgentStream, connection: BrokerConnection, effects: list[Effect]) -> None:
        self._agent = agent
        self._connection = connection
        self._effects = effects
        self._translating: PendingRequest | None = None
        self.requests = PendingRequests()

    # -- sending

    def may_send(self, request: PendingRequest) -> bool:
        """Whether the request may go out now."""
        if request.state != RequestState.WAITING or not self._connection.up:
            return False
        return request.early or (self._connection.established and not self.requests.lost and not self._translates())

    def _translates(self) -> bool:
        return self._translating is not None and self._translating.state == RequestState.TRANSLATING

    def send(self, request: PendingRequest, now: float) -> None:
        """Send a request, or ask for the broker's names of its paths first."""
        if self._connection.files and request.rule.paths:
            from .path_rewriter import paths_in

            request.state = RequestState.TRANSLATING
            self._translating = request
            self._effects.append(TranslatePaths(request.wire_key, paths_in(request.line), self._connection.files))
        else:
            self._transmit(request, request.line, now)

    def translated(self, wire_key: str, names: Mapping[str, str | None], now: float) -> None:
        """Send a request under the broker's names; its own line stays, because the next broker may see our files."""
        request = self.requests.get(wire_key)
        if request is not None and request is self._translating and request.state == RequestState.TRANSLATING:
            from .path_rewriter import with_names

            line, refusal = with_names(request.line, names)
            if refusal:
                self.fail(request, INVALID_PARAMS, f"{request.tool} was not executed: {refusal}")
            else:
                self._transmit(request, line, now)
        self.proceed(now)

    def _transmit(self, request: PendingRequest, line: bytes, now: float) -> None:
        request.ordinal = self._connection.send(line)
        request.connection, request.sent_at, request.state = self._connection.number, now, RequestState.SENT
        request.tries += 1

    def proceed(self, now: float) -> None:
        """Ask for the outcomes of the oldest lost writes, or send the requests that wait."""
        if not self._connection.established or self._connection.asked:
            return
        if self.requests.lost:
            self._connection.ask_outcomes(self.requests.lost.values(), now)
            return
        for request in self.requests:
            if self.may_send(request):
                self.send(request, now)

    # -- what comes back

    def answered(self, wire_key: str, line: bytes) -> None:
        """Pass the broker's answer on, unless it comes too late."""
        request = self.requests.get(wire_key)
        if request is None or request.state not in (RequestState.SENT, RequestState.OVER):
            return
        if request.state == RequestState.SENT:
            self._agent.out.put_line(request.answer(line))
        self.requests.remove(request)

    def cancel(self, request: PendingRequest) -> None:
        """The agent cancelled it: there will be no answer, for a late one makes some clients drop the session."""
        if request.state == RequestState.SENT:
            self._connection.cancel(request)
        self.requests.answered(request)

    def fail(self, request: PendingRequest, code: int, text: str) -> None:
        """Answer it with an error; a broker that has it is told that nobody waits any more."""
        self._agent.error(request.id, code, text)
        if request.state == RequestState.SENT:
            self._connection.cancel(request)
        self.requests.answered(request)

    def expire(self, request: PendingRequest, why: str, now: float) -> None:
        """It has waited for too long; `why`: why no broker can be reached, "" where one can."""
        waited = f"There was no answer within {now - request.arrived:.0f} s."
        if request.may_have_run:
            self.fail(request, *request.unknown(f"{waited} {why}".rstrip()))
        else:
            self.fail(request, *request.error(why or f"{waited} See `mempalace-broker status`."))

    def give_out(self, why: str) -> None:
        """Answer every open request with an error, whatever may fail meanwhile: never twice."""
        for request in self.requests:
            code, text = request.unknown(why) if request.may_have_run else request.error(why)
            line = rpc.error_line(request.id, code, text) if request.awaited else b""
            self.requests.remove(request)
            self._agent.out.put(line)

    def succeed(self, request: PendingRequest, result: object) -> None:
        """Answer it with a result that did not come from a broker."""
        self._agent.result(request.id, result)
        self.requests.answered(request)

    # -- lost connections

    def connection_lost(self, reason: str, now: float) -> None:
        """Sort what the connection carried: reads wait again, the outcomes of writes have to be asked for."""
        for request in self.requests:
            if not request.awaited:
                self.requests.remove(request)
            elif request.state == RequestState.TRANSLATING:
                request.state = RequestState.WAITING
            elif request.state == RequestState.SENT:
                self._recall(request, reason, now)

    def _recall(self, request: PendingRequest, reason: str, now: float) -> None:
        if request.writes:
            self.requests.lose(request)
        else:
            self._wait_again(request, reason, now)

    def hello_refused(self) -> None:
        """Before hello's answer only `initialize` and `tools/list` went out: nothing was executed."""
        for request in self.requests:
            if request.awaited and request.state == RequestState.SENT:
                request.state = RequestState.WAITING

    def _wait_again(self, request: PendingRequest, reason: str, now: float) -> None:
        """It was sent, and either was not executed or does no harm twice."""
        request.state = RequestState.WAITING
        request.since = now
        self.requests.lost.pop(request.wire_key, None)
        if request.tries >= MAX_TRIES:
            why = f"{request.tries} connections were lost while it was under way (the last one: {reason})."
            self.fail(request, *request.error(why))

    def settle(self, connection: int, outcomes: Mapping[str, Any], now: float) -> None:
        """The broker said what became of the writes that a lost connection carried."""
        for request in [request for request in self.requests.lost.values() if request.connection == connection]:
            outcome = outcomes.get(str(request.ordinal))
            self._settle_one(request, outcome if isinstance(outcome, dict) else {}, now)
        self.proceed(now)

    def _settle_one(self, request: PendingRequest, outcome: Mapping[str, Any], now: float) -> None:
        state, response = outcome.get("state"), outcome.get("response")
        if state == WriteOutcome.NOT_STARTED:
            self._wait_again(request, "it had not been started", now)
        elif state != WriteOutcome.DONE:
            self.fail(request, *request.unknown("The connection to the broker was lost while it was under way."))
        elif isinstance(response, dict):
            self._agent.out.put_line(rpc.to_bytes({**response, "id": request.id}))
            self.requests.remove(request)
        else:
            text = f"{request.tool} was executed, but its answer was lost. Do not send it again."
            self.fail(request, OUTCOME_UNKNOWN, text)
