"""One connection over HTTP/1.1: h11 reads, this class bounds and answers.

A client has so long to send a head and to go on with a body; until it showed the token nothing of a body is kept. What
it pipelines waits in the kernel until its turn comes. A connection that reads no answer is dropped as others are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11

from ...system.loopback_peer import LoopbackPeer
from ..machine.session import Origin
from .machine.gate import Admitted, Head, Refusal, Route

if TYPE_CHECKING:
    import socket

    from .client import Listener, Pending

HEAD_S = 10.0
BODY_S = 30.0  # between two parts of a body
REST_S = 120.0  # between two requests
LINGER_S = 2.0  # for a client that we refused to notice that
BEAT_S = 15.0
MAX_HEAD = 32 << 10
MAX_BODY = 64 << 20
SHORT = 64 << 10  # a body that is read although it is refused
HIGH_WATER = 1 << 20
LARGE = 1 << 20  # from here on the bodies, or the unread answers, of all connections are added up
_JSON = "application/json"


class HttpConnection(asyncio.Protocol):
    """The asyncio protocol of one connection.

    Attributes:
        deadline: when it is dropped, unless something happens before; 0 while we owe an answer.
        known: it showed a token. is_guest: the last one was a guest's. peer: the client's end.
        held: bytes of a body that is on its way.
    """

    def __init__(self, listener: Listener[HttpConnection]) -> None:
        self._listener = listener
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._transport: asyncio.Transport | None = None
        self._call: Admitted | None = None
        self._refusal: Refusal | None = None
        self._body = bytearray()  # not its parts: each would cost more than a part of two bytes
        self._beat: asyncio.TimerHandle | None = None
        self._left = 0  # of the answers that it does not read
        self._without_body = False  # it asked by HEAD: for the answer's head alone
        self._stuck = False  # it does not read what we send
        self._hanging_up = False  # what it still sends is not looked at
        self._turn_to_come = False  # what it has sent is still to be read
        self.reply: Pending | None = None
        self.deadline = 0.0
        self.known = self.is_guest = False
        self.peer = LoopbackPeer(None, None)
        self.held = 0

    # -- what happens to it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport = transport
        self.peer = LoopbackPeer(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self._wait(HEAD_S)
        self._listener.made(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Gone."""
        self._transport = None
        self._body, self.held = bytearray(), 0
        self._stop_beat()
        self._listener.lost(self)
        reply, self.reply = self.reply, None
        if reply is not None:
            reply.lost()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests, b"" at their end."""
        if not self._hanging_up:
            self._http.receive_data(data)
            self._take_turns()

    def eof_received(self) -> bool:
        """It says no more, and still gets its answer; whoever listens to a stream and hangs up has gone."""
        self.data_received(b"")
        return self._turn_to_come or (self.reply is not None and self._beat is None)

    def pause_writing(self) -> None:
        """It does not keep up: its next request waits, and we watch whether it reads at all."""
        self._stuck = True
        if self._transport is not None:
            self._transport.pause_reading()
            self._left = self.unread
            self._wait(self._listener.stall_s)

    def resume_writing(self) -> None:
        """It caught up."""
        self._stuck = False
        self._wait(0.0 if self.reply is not None else REST_S)
        self._go_on()

    def drop(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End it once everything is sent."""
        if self._transport is not None:
            self._transport.close()

    @property
    def unread(self) -> int:
        """Bytes that the client has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def at_rest(self) -> bool:
        """Whether nothing has begun that would have to be answered."""
        idle = self._http.states == {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}
        if not idle or self._http.trailing_data[0] or self._transport is None:
            return False
        return not self.unread  # the rest of an answer would be lost with us

    def release(self) -> socket.socket:
        """Give the socket away: it stays open, and is no longer ours."""
        assert self._transport is not None
        sock: socket.socket = self._transport.get_extra_info("socket").dup()
        self._transport.abort()
        return sock

    def overdue(self, now: float) -> bool:
        """Whether it had its time; one that reads its answer, however slowly, gets more."""
        if not self.deadline or now < self.deadline:
            return False
        if self._stuck and self._transport is not None:
            before, self._left = self._left, self.unread
            self._wait(self._listener.stall_s)
            return self._left >= before
        return True

    def _wait(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds if seconds else 0.0

    # -- requests

    def _take_turns(self) -> None:
        """Read what has come, now or when this connection's turn comes; until then it waits in the kernel."""
        if not self._turn_to_come:
            self._turn_to_come = True
            self._listener.turns.add(self._read)
            if self._turn_to_come and self._transport is not None:
                self._transport.pause_reading()

    def _read(self) -> bool:
        """Read one part of a request; return whether there may be more."""
        more = False
        try:
            more = self._read_part()
        except h11.RemoteProtocolError as exc:
            self._misunderstood(exc)
        except Exception:
            self.drop()
            raise
        finally:
            self._turn_to_come = more
        return more

    def _read_part(self) -> bool:
        if self._transport is None or self._hanging_up or self._stuck:
            return False
        event = self._http.next_event()
        if event is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue and self._call is not None:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._transport.resume_reading()
            return False
        if event is h11.PAUSED:
            self._transport.pause_reading()
            return False
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data):
            self._more(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._whole()
        else:  # ConnectionClosed
            if self.reply is None:
                self._transport.close()
            return False
        return True

    def _begin(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        self._without_body = request.method == b"HEAD"
        head = Head(request.method.decode("ascii"), request.target.decode("latin-1"), headers)
        verdict = self._listener.judge(head)
        length = int(headers.get(b"content-length", b"0")[:20])
        chunked = b"transfer-encoding" in headers
        if chunked and b"content-length" in headers:  # proxies disagree where such a body ends
            verdict = Refusal(400, "send Content-Length or Transfer-Encoding, not both")
        elif length > MAX_BODY and isinstance(verdict, Admitted):
            verdict = Refusal(413, f"a body has at most {MAX_BODY} bytes")
        if isinstance(verdict, Refusal):
            if chunked or length > SHORT or self._http.they_are_waiting_for_100_continue:
                self.refuse(verdict)
            else:
                self._refusal = verdict  # said when the body has passed: then the connection can stay
            return
        self._call = verdict
        self.known = self.known or bool(verdict.token)
        self.is_guest = verdict.origin is Origin.GUEST
        self._wait(BODY_S)

    def _more(self, data: bytes) -> None:
        if self._call is None:
            return  # refused
        self.held += len(data)
        if not self.known or self.held > MAX_BODY or (self.held > LARGE and self._listener.overfull):
            self.refuse(Refusal(413, f"a body has at most {MAX_BODY} bytes, and all together must fit into memory"))
            return
        self._body += data
        self._wait(BODY_S)

    def _whole(self) -> None:
        call, self._call = self._call, None
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self.refuse(refusal)
        if call is None:
            return
        body, self._body, self.held = bytes(self._body), bytearray(), 0
        self.deadline = 0.0
        if call.route is Route.HEALTH:
            self.respond(200, b"ok", kind="text/plain")
        else:
            self._listener.handle(self, call, body)

    def _misunderstood(self, exc: h11.RemoteProtocolError) -> None:
        """Not HTTP, or not allowed by it: say so if an answer may be said, and hang up."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._call = None
            self.refuse(Refusal(exc.error_status_hint, "this is not a valid HTTP/1.1 request"))
        elif self._transport is not None:
            self._hang_up()

    # -- answers

    def _send(self, *events: Any) -> None:
        if self._transport is not None:
            self._transport.write(b"".join([self._http.send(event) or b"" for event in events]))
            if self.unread > LARGE:
                self._listener.limit_unread()

    def respond(self, status: int, body: bytes, *headers: tuple[str, str], kind: str = _JSON) -> None:
        """Send a whole answer; then the next request has its turn."""
        about = [("Content-Type", kind)] if body else []
        head = h11.Response(status_code=status, headers=[*about, ("Content-Length", str(len(body))), *headers])
        self._send(head, h11.Data(data=b"" if self._without_body else body), h11.EndOfMessage())
        self._next()

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal; whoever is still sending a body is hung up on."""
        self._call, self._refusal, self._body, self.held = None, None, bytearray(), 0
        closing = [] if self._http.their_state is h11.DONE else [("Connection", "close")]
        headers = [*filter(None, [refusal.header]), *closing]
        self._listener.refused(refusal)
        self.respond(refusal.status, refusal.text.encode() + b"\n", *headers, kind="text/plain; charset=utf-8")

    def begin_stream(self, event: str, *, prime: bool) -> None:
        """Begin a stream of events, see `Client`."""
        head = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
        self._send(h11.Response(status_code=200, headers=head))
        first = f"id: {event}\ndata: \n\n" if event and prime else ": wait\n\n"
        self._send(h11.Data(data=first.encode()))
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._keep_alive)

    def _keep_alive(self) -> None:
        self._send(h11.Data(data=b": wait\n\n"))
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._keep_alive)

    def _stop_beat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def end_stream(self, messages: list[bytes], event: str) -> None:
        """Send the last events of the stream."""
        self._stop_beat()
        self.reply = None
        for number, message in enumerate(messages, 1):
            named = f"id: {event}\n".encode() if event and number == len(messages) else b""
            self._send(h11.Data(data=named + b"event: message\ndata: " + message + b"\n\n"))
        self._send(h11.EndOfMessage())
        self._next()

    def _next(self) -> None:
        """The answer is out: go on with the next request, or hang up."""
        if self._transport is None:
            return
        if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is not h11.DONE:
            self._hang_up()
            return
        self._http.start_next_cycle()
        self._without_body = False
        if not self._stuck:  # else once it has read
            self._wait(REST_S)
            self._go_on()

    def _go_on(self) -> None:
        """Read on, and begin with what has come already."""
        if self._transport is None or self._turn_to_come:
            return
        if any(self._http.trailing_data):
            self._turn_to_come = True
            self._listener.turns.add_later(self._read)  # we may be in the middle of a turn of the protocol's
        else:
            self._transport.resume_reading()

    def _hang_up(self) -> None:
        """Close it, but not in the face of a client that is still sending: it would never read our answer."""
        assert self._transport is not None
        if self._http.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            self._transport.close()
            self._wait(self._listener.stall_s)
        else:
            self._hanging_up = True
            self._transport.resume_reading()
            self._transport.write_eof()
            self._wait(LINGER_S)
