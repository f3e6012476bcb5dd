"""The way to a broker over TCP: find the address, connect, let both sides prove that they know the token.

A machine that never blocks, as the `UnixRoute` is. Names are looked up by a thread of their own, because the
system's resolver can only block: a thread costs nothing to start where a process would cost 20 ms, and one that
hangs in a dead resolver is left behind without harm. Imported late, where TCP is used; inside the shim's import
budget all the same.
"""

from __future__ import annotations

import errno
import os
from _socket import (
    AF_INET,
    AF_INET6,
    AI_NUMERICHOST,
    IPPROTO_TCP,
    SO_ERROR,
    SO_KEEPALIVE,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    gaierror,
    getaddrinfo,
)
from _socket import socket as RawSocket

from ..errors import BrokerError, BrokerUnavailable, DeadlineExceeded, HandshakeRefused, UsageError
from ..protocol.record import DiscoveryRecord
from ..protocol.tcp_auth import NONCE_BYTES, AuthFailure, AuthState, ClientSide, is_token
from ..system.atomic_files import read_bytes
from ..system.clock import Deadline
from ..system.record_file import RecordFile
from ..system.token_file import VARIABLE as TOKEN_VARIABLE
from ..system.token_file import read_token, token_path
from .endpoint import TCP, Endpoint
from .unix import Attempt, Connected, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..system.paths import StateFiles

    Address = tuple[int, Any]  # family, and what connect() takes

DOCKER_HOST = "host.docker.internal"
PODMAN_HOST = "host.containers.internal"
HOSTS_FILE = "/etc/hosts"
_IN_DOCKER = "/.dockerenv"
CONNECT_S = 3.0  # for one address of several
ATTEMPTS = 3  # where it hangs up before it has said a word: a broker that is beset may, and one that restarts does
LONGEST_WAIT_S = 10.0
_FIRST_LOOK_S = 0.001
_LONGEST_LOOK_S = 0.025
_READ = 4096
_ON_THE_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR)
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPALIVE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_USER_TIMEOUT_MS = 60_000  # a broker that is gone without a word is noticed by then, whatever we had sent
_LOOK_THERE = "look at `listens on` in `mempalace-broker status` on the broker's machine (its setting tcp)."
_COPY = (
    "copy what `mempalace-broker token` prints on the broker's machine into a file that only you can read, "
    f"and name it in {TOKEN_VARIABLE}."
)


class TcpRoute(Attempt):
    """One attempt to reach one endpoint.

    Args:
        endpoint: TCP, with a port. token: 64 hex digits. deadline: of the whole attempt.
    """

    def __init__(self, endpoint: Endpoint, token: str, deadline: Deadline) -> None:
        self.endpoint = endpoint
        self.why = ""
        self._token = token
        self._deadline = deadline
        self._clock = deadline.clock
        self._addresses: list[Address] | None = None  # still to be tried; None: not known yet
        self._lookup: _Lookup | None = None
        self._sock: RawSocket | None = None
        self._limit = deadline  # of the connect under way
        self._look_s = _FIRST_LOOK_S
        self._side: ClientSide | None = None
        self._attempts = 0
        self._words: list[str] = []  # what became of the addresses tried

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
                raise UsageError(f"{self.endpoint} needs the broker's token, and this is none.", hint=_COPY)
            if not self.endpoint.port:
                raise UsageError(f"{self.endpoint} names no port.", hint=f"write tcp://host:port; {_LOOK_THERE}")
            self._addresses = numeric(self.endpoint)
            if self._addresses is not None:
                return None
            self._lookup = _Lookup(self.endpoint)
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
        left = min(CONNECT_S, self._deadline.remaining())
        self._limit = Deadline.after(self._clock, left)
        if code and code not in _ON_THE_WAY:
            self._give_up(os.strerror(code))

    def _give_up(self, words: str) -> None:
        """This address does not work: the next one."""
        assert self._addresses is not None
        _, where = self._addresses.pop(0)
        text = f"{where[0]}: {words}" if where[0] != self.endpoint.host else words
        if text not in self._words:
            self._words.append(text)
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _nobody(self) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"nobody answers at {self.endpoint} ({'; '.join(self._words) or 'no address'}).", hint=_LOOK_THERE
        )

    # -- the proof

    def _greet(self, sock: RawSocket) -> None:
        tune(sock)
        self._attempts += 1
        self._side = ClientSide(self._token, os.urandom(NONCE_BYTES))
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
            return  # what the matter is, the next recv says
        if sent != len(data):  # an empty send buffer takes 200 bytes; this is no connection to work with
            raise BrokerUnavailable(f"{self.endpoint} takes no data.", hint=_LOOK_THERE)

    def _hung_up(self, side: ClientSide, words: str) -> Connected | Waiting:
        """Gone in the middle. Before its first word that may be mere bad luck; later it is an answer."""
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
                f"whoever listens at {self.endpoint} does not know our token ({side.text}): a broker with another "
                "token, or no broker of yours. Nothing was sent to it.",
                hint=_COPY,
            )
        if side.failure == AuthFailure.REFUSED:
            return HandshakeRefused(f"the broker at {self.endpoint} refuses: {side.text}.", hint=_LOOK_THERE)
        assert side.failure == AuthFailure.GARBAGE
        return BrokerUnavailable(
            f"what listens at {self.endpoint} is no mempalace-broker ({side.text}).", hint=_LOOK_THERE
        )

    def _late(self, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.endpoint}: {what}.", hint=_LOOK_THERE)

    def _wait(self, seconds: float, fd: int, why: str) -> Waiting:
        self.why = why
        return Waiting(min(seconds, LONGEST_WAIT_S), fd, why)


class _Lookup:
    """One look-up in a thread of its own. `result`: None until then; addresses, or the resolver's words."""

    def __init__(self, endpoint: Endpoint) -> None:
        import _thread

        self.result: list[Address] | str | None = None
        self.fd, self._end = os.pipe()
        _thread.start_new_thread(self._run, (endpoint.host, endpoint.port, self._end))

    def _run(self, host: str, port: int, end: int) -> None:
        """In the thread. It owns `end`; its closing is what the other side waits for."""
        try:
            self.result = resolve(host, port)
        except (OSError, UnicodeError) as exc:
            self.result = getattr(exc, "strerror", None) or str(exc)
        finally:
            os.close(end)

    def close(self) -> None:
        """Listen no more. A thread that still hangs closes its end when the resolver lets it go."""
        os.close(self.fd)


def resolve(host: str, port: int, flags: int = 0) -> list[Address]:
    """The addresses of a host, in the system's order. Blocks, unless `flags` forbid it.

    Raises:
        OSError: there are none. UnicodeError: it can't be a name.
    """
    name = host.encode() if host.isascii() else host  # text would go through the slow import of a codec
    found = getaddrinfo(name, port, 0, SOCK_STREAM, IPPROTO_TCP, flags)
    return [(entry[0], entry[4]) for entry in found if entry[0] in (AF_INET, AF_INET6)]


def numeric(endpoint: Endpoint) -> list[Address] | None:
    """The address that an endpoint has instead of a name, as a list of one; None where it has a name."""
    try:
        return resolve(endpoint.host, endpoint.port, AI_NUMERICHOST)
    except (gaierror, UnicodeError):
        return None


def _connecting(sock: RawSocket) -> int | None:
    """0: connected; an errno: failed; None: under way."""
    import select

    poller = select.poll()
    poller.register(sock.fileno(), select.POLLOUT)
    return sock.getsockopt(SOL_SOCKET, SO_ERROR) if poller.poll(0) else None


def tune(sock: RawSocket) -> None:
    """Send at once, and notice a silent death within a minute or two, whatever the system's defaults."""
    import _socket

    sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS)):
        option = getattr(_socket, name, None)
        if option is not None:
            sock.setsockopt(IPPROTO_TCP, option, value)


# -- what to try, and with which token


def candidates(endpoint: Endpoint, *, hosts_file: str = HOSTS_FILE) -> list[Endpoint]:
    """Where a container may find the broker whose record names `endpoint`, best first.

    An address of the broker's machine that means something elsewhere, then the names by which container engines
    call their host, where the system's table has them or the engine's own resolver surely answers.
    """
    found = [endpoint] if not (_is_everywhere(endpoint) or _is_loopback(endpoint)) else []
    known = _names(hosts_file)
    names = [n for n in (DOCKER_HOST, PODMAN_HOST) if n in known or (n == DOCKER_HOST and os.path.exists(_IN_DOCKER))]
    found += [Endpoint(TCP, host=name, port=endpoint.port) for name in names]
    return found + ([endpoint] if _is_loopback(endpoint) else [])


def _is_everywhere(endpoint: Endpoint) -> bool:
    return endpoint.host in ("0.0.0.0", "::", "")


def _is_loopback(endpoint: Endpoint) -> bool:
    """There it is the broker's machine; here it is this container, unless the two share a network."""
    return endpoint.host.startswith("127.") or endpoint.host in ("::1", "localhost")


def _names(hosts_file: str) -> set[str]:
    """The names in the system's table of hosts; none where it can't be read."""
    try:
        data = read_bytes(os.path.realpath(hosts_file), 1 << 20) or b""
    except OSError:
        return set()
    words = (line.partition("#")[0].split() for line in data.decode("utf-8", "replace").splitlines())
    return {name for line in words for name in line[1:]}


def find_token(files: StateFiles, env: Mapping[str, str]) -> str:
    """The token for the broker of this state root: of the file that the environment names, of the record, or of
    the state root; "" where there is none.

    Raises:
        UsageError: a file is there and is not to be trusted, or the one named is not there.
    """
    named = env.get(TOKEN_VARIABLE, "").strip()
    if named:
        found = read_token(named, given=True)
        if found is None:
            raise UsageError(f"${TOKEN_VARIABLE} names {named}, which is not there.", hint=_COPY)
        return found
    record = RecordFile(files.record).read()
    if isinstance(record, DiscoveryRecord) and record.token and is_token(record.token):
        return record.token
    return read_token(token_path(files.root)) or ""
