"""The route to a broker over TCP: find the address, connect, let both sides prove that they know the token.

Imported late, where TCP is used; inside the shim's import budget all the same.
"""

from __future__ import annotations

import errno
import os
from _socket import SO_ERROR, SOCK_STREAM, SOL_SOCKET
from _socket import socket as RawSocket

from ..errors import BrokerError, BrokerUnavailable, DeadlineExceeded, HandshakeRefused, UsageError
from ..protocol.tcp_auth import NONCE_BYTES, AuthFailure, AuthState, ClientSide, is_token
from ..system.clock import Deadline
from ..system.tcp_options import set_tcp_options
from .attempt import Attempt, Connected, Waiting
from .tcp_addresses import DOCKER_HOST, Lookup, numeric
from .tcp_token import COPY_THE_TOKEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .tcp_addresses import Address

ADDRESS_S = 3.0  # for one address of several
ATTEMPTS = 3  # where it hangs up before its first word: a swamped or restarting broker may do that
LONGEST_WAIT_S = 10.0
_FIRST_LOOK_S = 0.001
_LONGEST_LOOK_S = 0.025
_READ = 4096
_ON_THE_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR)
_LOOK_THERE = "look at `listens on` in `mempalace-broker status` on the broker's machine (its setting tcp)."


class TcpRoute(Attempt):
    """One attempt to reach one endpoint.

    Args:
        endpoint: TCP, with a port. token: 64 hex digits. deadline: of the whole attempt.
    """

    def __init__(self, endpoint: Endpoint, token: str, deadline: Deadline) -> None:
        super().__init__(deadline)
        self.endpoint = endpoint
        self._token = token
        self._addresses: list[Address] | None = None  # still to be tried; None: not known yet
        self._lookup: Lookup | None = None
        self._sock: RawSocket | None = None
        self._limit = deadline  # of the connect under way
        self._look_s = _FIRST_LOOK_S
        self._side: ClientSide | None = None
        self._attempts = 0
        self._outcomes: list[str] = []  # of the addresses that were tried, in words

    def close(self) -> None:
        """Give up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._lookup is not None:
            self._lookup.close()
            self._lookup = None

    def _step(self) -> Connected | Waiting:
        if self._addresses is None:
            waiting = self._find()
            if waiting is not None:
                return waiting
        while self._side is None:
            waiting = self._connect()
            if waiting is not None:
                return waiting
        return self._converse(self._side)

    # -- the address

    def _find(self) -> Waiting | None:
        if self._lookup is None:
            if not is_token(self._token):
                raise UsageError(f"{self.endpoint} needs the broker's token, and this is not one.", hint=COPY_THE_TOKEN)
            if not self.endpoint.port:
                raise UsageError(f"{self.endpoint} names no port.", hint=f"write tcp://host:port; {_LOOK_THERE}")
            self._addresses = numeric(self.endpoint)
            if self._addresses is not None:
                return None
            self._lookup = Lookup(self.endpoint)
        found = self._lookup.result
        if found is None:
            if self._deadline.expired:
                raise self._late(f"looking up {self.endpoint.host} took too long")
            return self._wait(self._deadline.remaining(), self._lookup.fd, f"looking up {self.endpoint.host}")
        self._lookup.close()
        self._lookup = None
        if isinstance(found, str):
            raise BrokerUnavailable(
                f"{self.endpoint}: no address for {self.endpoint.host} ({found}).",
                hint=f"start the container with --add-host={DOCKER_HOST}:host-gateway, or give an address",
            )
        self._addresses = found
        return None

    # -- the connection

    def _connect(self) -> Waiting | None:
        """Connect to the next address; None: something has changed, look again."""
        assert self._addresses is not None
        if self._sock is None:
            if not self._addresses:
                raise self._nobody()
            self._dial(self._addresses[0])
            return None
        failure = _connecting(self._sock)
        if failure is None and not self._limit.expired:
            pause, self._look_s = self._look_s, min(2 * self._look_s, _LONGEST_LOOK_S)
            return self._wait(min(pause, self._limit.remaining()), -1, f"connecting to {self.endpoint}")
        if failure == 0:
            self._greet(self._sock)
            return None
        self._give_up("no answer" if failure is None else os.strerror(failure))
        if self._deadline.expired:
            self._addresses = []
        return None

    def _dial(self, address: Address) -> None:
        family, where = address
        try:
            self._sock = RawSocket(family, SOCK_STREAM)
            self._sock.setblocking(False)
            code = self._sock.connect_ex(where)
        except OSError as exc:  # no descriptors, or this family is unknown here
            code = exc.errno or errno.EIO
        self._look_s = _FIRST_LOOK_S
        left = min(ADDRESS_S, self._deadline.remaining())
        self._limit = Deadline.after(self._clock, left)
        if code and code not in _ON_THE_WAY:
            self._give_up(os.strerror(code))

    def _give_up(self, words: str) -> None:
        """This address does not work: the next one."""
        assert self._addresses is not None
        _, where = self._addresses.pop(0)
        text = f"{where[0]}: {words}" if where[0] != self.endpoint.host else words
        if text not in self._outcomes:
            self._outcomes.append(text)
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _nobody(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"nobody answers at {self.endpoint} ({'; '.join(self._outcomes) or 'no address'}).", hint=_LOOK_THERE
        )

    # -- the proof

    def _greet(self, sock: RawSocket) -> None:
        set_tcp_options(sock)
        self._attempts += 1
        self._side = ClientSide(self._token, os.urandom(NONCE_BYTES), self.endpoint.port)
        self._send(sock, self._side.start())

    def _converse(self, side: ClientSide) -> Connected | Waiting:
        while self._sock is not None and side.state != AuthState.PROVED:
            try:
                data = self._sock.recv(_READ)
            except (BlockingIOError, InterruptedError):
                if self._deadline.expired:
                    raise self._late("it took the connection and did not prove itself in time") from None
                words = f"waiting for {self.endpoint} to prove itself"
                return self._wait(self._deadline.remaining(), self._sock.fileno(), words)
            except OSError as exc:
                return self._hung_up(side, exc.strerror or str(exc))
            if not data:
                return self._hung_up(side, "it closed the connection")
            said = side.feed(data)
            if side.state == AuthState.FAILED:
                raise self._refusal(side)
            if said:
                self._send(self._sock, said)
        assert self._sock is not None
        sock, self._sock = self._sock, None
        return Connected(sock, str(self.endpoint), False)

    def _send(self, sock: RawSocket, data: bytes) -> None:
        try:
            sent = sock.send(data)
        except OSError:
            return  # the next recv reports the error
        if sent != len(data):  # an empty send buffer takes 200 bytes: this connection is of no use
            raise BrokerUnavailable(f"{self.endpoint} takes no data.", hint=_LOOK_THERE)

    def _hung_up(self, side: ClientSide, words: str) -> Connected | Waiting:
        """The other side left. Before its first word that may be bad luck: try again. Later it is an answer."""
        self.close()
        self._side = None
        if side.heard or self._attempts >= ATTEMPTS or self._deadline.expired:
            when = "after it had proved itself" if side.heard else "before it had proved itself"
            raise BrokerUnavailable(
                f"{self.endpoint} hung up {when} ({words}).",
                hint="`mempalace-broker logs` on the broker's machine; if there is no broker, " + _LOOK_THERE,
            )
        return self._step()

    def _refusal(self, side: ClientSide) -> BrokerError:
        if side.failure == AuthFailure.WRONG_PROOF:
            return HandshakeRefused(
                f"the listener at {self.endpoint} does not know our token, or relays to another port ({side.text}): a "
                "broker of another version or with another token, or not your broker. Nothing was sent to it.",
                hint=COPY_THE_TOKEN,
            )
        if side.failure == AuthFailure.REFUSED:
            return HandshakeRefused(f"the broker at {self.endpoint} refuses: {side.text}.", hint=_LOOK_THERE)
        assert side.failure == AuthFailure.GARBAGE
        return BrokerUnavailable(
            f"the listener at {self.endpoint} is not a mempalace-broker ({side.text}).", hint=_LOOK_THERE
        )

    def _late(self, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.endpoint}: {what}.", hint=_LOOK_THERE)

    def _wait(self, seconds: float, fd: int, why: str) -> Waiting:
        self.why = why
        return Waiting(min(seconds, LONGEST_WAIT_S), fd, why)


def _connecting(sock: RawSocket) -> int | None:
    """0: connected; an errno: failed; None: under way."""
    import select

    poller = select.poll()
    poller.register(sock.fileno(), select.POLLOUT)
    return sock.getsockopt(SOL_SOCKET, SO_ERROR) if poller.poll(0) else None
