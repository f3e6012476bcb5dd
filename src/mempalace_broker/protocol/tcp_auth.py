"""Mutual authentication on a TCP connection: both sides prove that they know the token, neither sends it.

    client -> broker   {"id": 0, "method": "broker/auth", "params": {"wire": 1, "nonce": C}}
    broker -> client   {"id": 0, "result": {"nonce": S, "proof": HMAC(token, "server" C S wire port)}}
    client -> broker   {"id": 1, "method": "broker/prove", "params": {"proof": HMAC(token, "client" C S wire port)}}
    broker -> client   {"id": 1, "result": {}}                      then the usual conversation, as on the unix socket

The broker proves itself first, so a rogue listener gets one random number and nothing else. The roles have labels, so
a proof can't be sent back to its maker; both nonces are new for each connection, so nothing can be replayed. Every
message must be exactly as above: a single changed bit ends the handshake. `port` is not sent: the client takes the one
that it dialled, the broker its own. So whoever took the broker's usual port while it was down, and relays to the one
to which it moved, fails. What this can't do: the conversation that follows is not encrypted, and a man in the middle on
the way to the right port can relay the handshake, and then read and inject.

Sans-IO; nonces are handed in. `mp-shim` imports this module where it uses TCP.
"""

from __future__ import annotations

from ..errors import NOT_AUTHENTICATED
from .framing import LineReader, TooLong
from .hello import WIRE_VERSION
from .jsonrpc import load_object, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

AUTH = "broker/auth"
PROVE = "broker/prove"
TOKEN_BYTES = 32
NONCE_BYTES = 32
MAX_LINE = 1024  # bytes; the longest message has about 200

_BLOCK = 64  # of SHA-256, RFC 6234
_DIGITS = frozenset("0123456789abcdef")


class AuthState(str):
    """How far one side of a handshake is."""

    __slots__ = ()

    OPEN: ClassVar[AuthState]  # more messages have to come
    PROVED: ClassVar[AuthState]  # the other side has proved itself
    FAILED: ClassVar[AuthState]  # it has not; `failure` says how


AuthState.OPEN = AuthState("open")
AuthState.PROVED = AuthState("proved")
AuthState.FAILED = AuthState("failed")


class AuthFailure(str):
    """Why a handshake failed."""

    __slots__ = ()

    NONE: ClassVar[AuthFailure]
    GARBAGE: ClassVar[AuthFailure]  # the other side does not speak this protocol
    WRONG_PROOF: ClassVar[AuthFailure]  # it does not know our token
    REFUSED: ClassVar[AuthFailure]  # it speaks the protocol and refuses


AuthFailure.NONE = AuthFailure("")
AuthFailure.GARBAGE = AuthFailure("garbage")
AuthFailure.WRONG_PROOF = AuthFailure("wrong proof")
AuthFailure.REFUSED = AuthFailure("refused")


def is_token(text: str) -> bool:
    """Whether this may be a token: 64 lower-case hex digits."""
    return _is_hex(text, TOKEN_BYTES)


def _is_hex(text: object, size: int) -> bool:
    return isinstance(text, str) and len(text) == 2 * size and _DIGITS.issuperset(text)


def _sha256() -> Callable[[bytes], Any] | None:
    """Return SHA-256 from its own module in 0.3 ms; `hmac` loads OpenSSL, 3.5 ms and 4 MB in a shim of 10 MB."""
    try:
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]  # Python 3.12 and newer
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found,no-redef,unused-ignore]  # 3.11
        except ImportError:  # a Python built without
            return None
    found: Callable[[bytes], Any] = sha256
    return found


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256 (RFC 2104) with a key of at most 64 bytes."""
    sha256 = _sha256()
    if sha256 is None:
        import hmac

        return hmac.digest(key, message, "sha256")
    padded = key.ljust(_BLOCK, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    outer: bytes = sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    return outer


def proof(token: str, role: str, client_nonce: str, server_nonce: str, port: int) -> str:
    """Return the proof that `role` ("server" or "client") sends, as hex digits. Every part carries its length."""
    parts = (
        b"mempalace-broker " + role.encode(),
        bytes.fromhex(client_nonce),
        bytes.fromhex(server_nonce),
        b"%d" % WIRE_VERSION,
        b"%d" % port,
    )
    return hmac_sha256(bytes.fromhex(token), b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hex()


def _same(mine: str, theirs: str) -> bool:
    """Compare in constant time."""
    from _operator import _compare_digest

    return _compare_digest(mine, theirs)


def _request(number: int, method: str, **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _result(number: int, **result: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def _line(message: dict[str, Any]) -> bytes:
    return to_bytes(message) + b"\n"


def _body(line: bytes | TooLong) -> dict[str, Any]:
    """The JSON object of a line, {} where it is anything else."""
    return {} if isinstance(line, TooLong) else load_object(line)


def _part(body: dict[str, Any], *names: str) -> object:
    """A nested member; None where it is missing."""
    value: Any = body
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


class _Side:
    """The part that both sides share; one object for each connection.

    Attributes:
        state: where the handshake is. failure, text: why it FAILED, for programs and for people.
        heard: whether a complete line has arrived.
    """

    __slots__ = ("_nonce", "_port", "_reader", "_token", "failure", "heard", "state", "text")

    def __init__(self, token: str, nonce: bytes, port: int) -> None:
        if not is_token(token) or len(nonce) != NONCE_BYTES:
            raise ValueError(f"a token has {TOKEN_BYTES} bytes as hex digits, a nonce {NONCE_BYTES} bytes")
        self._token = token
        self._nonce = nonce.hex()
        self._port = port
        self._reader = LineReader(MAX_LINE)
        self.state = AuthState.OPEN
        self.failure = AuthFailure.NONE
        self.text = ""
        self.heard = False

    def _fail(self, failure: AuthFailure, text: str) -> bytes:
        self.state, self.failure, self.text = AuthState.FAILED, failure, text
        return b""

    def __repr__(self) -> str:
        """For logs: neither token nor nonce."""
        return f"{type(self).__name__}({self.state} {self.failure})"


class ServerSide(_Side):
    """The broker's side of one connection.

    Args:
        token: 64 hex digits. nonce: 32 random bytes, used once. port: ours, where we listen.

    Attributes:
        rest: once PROVED, the bytes that followed the handshake.
    """

    __slots__ = ("_theirs", "rest")

    def __init__(self, token: str, nonce: bytes, port: int) -> None:
        super().__init__(token, nonce, port)
        self._theirs = ""
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the client; return bytes for it. Once FAILED these are an error, the last message to it."""
        out = b""
        while data and self.state == AuthState.OPEN:
            head, newline, data = data.partition(b"\n")
            for line in self._reader.feed(head + newline):
                self.heard = True
                out += self._prove(_body(line)) if self._theirs else self._challenge(_body(line))
        if self.state == AuthState.PROVED:
            self.rest += data
        return out

    def _challenge(self, body: dict[str, Any]) -> bytes:
        wire, nonce = _part(body, "params", "wire"), _part(body, "params", "nonce")
        if body.get("method") == AUTH and wire != WIRE_VERSION:
            return self._refuse(
                0,
                AuthFailure.REFUSED,
                f"this broker speaks wire version {WIRE_VERSION}, not {str(wire)[:20]}: "
                "install the same mempalace-broker on both sides",
            )
        if not _is_hex(nonce, NONCE_BYTES) or body != _request(0, AUTH, wire=WIRE_VERSION, nonce=nonce):
            return self._refuse(None, AuthFailure.GARBAGE, f"not authenticated: {AUTH} comes first")
        self._theirs = str(nonce)
        own = proof(self._token, "server", self._theirs, self._nonce, self._port)
        return _line(_result(0, nonce=self._nonce, proof=own))

    def _prove(self, body: dict[str, Any]) -> bytes:
        theirs = _part(body, "params", "proof")
        if not _is_hex(theirs, 32) or body != _request(1, PROVE, proof=theirs):
            return self._refuse(None, AuthFailure.GARBAGE, f"not authenticated: {PROVE} comes next")
        if not _same(proof(self._token, "client", self._theirs, self._nonce, self._port), str(theirs)):
            return self._refuse(1, AuthFailure.WRONG_PROOF, "not authenticated: the proof is wrong")
        self.state = AuthState.PROVED
        return _line(_result(1))

    def _refuse(self, number: int | None, failure: AuthFailure, text: str) -> bytes:
        self._fail(failure, text)
        error = {"code": NOT_AUTHENTICATED, "message": text}
        return _line({"jsonrpc": "2.0", "id": number, "error": error})


class ClientSide(_Side):
    """The client's side of one connection; takes the server's arguments; `port`: the one that it dialled."""

    __slots__ = ("_proved",)

    def __init__(self, token: str, nonce: bytes, port: int) -> None:
        super().__init__(token, nonce, port)
        self._proved = False

    def start(self) -> bytes:
        """Return the first message: our nonce."""
        return _line(_request(0, AUTH, wire=WIRE_VERSION, nonce=self._nonce))

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the listener; return bytes for it: our proof, once the listener has proved itself."""
        out = b""
        for line in self._reader.feed(data):
            self.heard = True
            if self.state == AuthState.OPEN:
                body = _body(line)
                refusal = _part(body, "error", "message")
                if isinstance(refusal, str):
                    self._fail(AuthFailure.REFUSED, refusal[:200])
                elif self._proved:
                    self._confirm(body)
                else:
                    out = self._check(body)
            else:
                self._fail(AuthFailure.GARBAGE, "it said more than it was asked")
                return b""
        if self._reader.held and self.state == AuthState.PROVED:
            self._fail(AuthFailure.GARBAGE, "it said more than it was asked")
        return out if self.state != AuthState.FAILED else b""

    def _check(self, body: dict[str, Any]) -> bytes:
        nonce, theirs = _part(body, "result", "nonce"), _part(body, "result", "proof")
        if not _is_hex(nonce, NONCE_BYTES) or not _is_hex(theirs, 32) or body != _result(0, nonce=nonce, proof=theirs):
            return self._fail(AuthFailure.GARBAGE, "it answers, but not as a mempalace-broker does")
        server_nonce = str(nonce)
        if server_nonce == self._nonce:
            return self._fail(AuthFailure.WRONG_PROOF, "it sent our own number back")
        if not _same(proof(self._token, "server", self._nonce, server_nonce, self._port), str(theirs)):
            return self._fail(AuthFailure.WRONG_PROOF, "its proof is wrong")
        self._proved = True
        return _line(_request(1, PROVE, proof=proof(self._token, "client", self._nonce, server_nonce, self._port)))

    def _confirm(self, body: dict[str, Any]) -> bytes:
        if body != _result(1):
            return self._fail(AuthFailure.GARBAGE, "it answers, but not as a mempalace-broker does")
        self.state = AuthState.PROVED
        return b""
