"""The hello between shim and broker, and the question about lost writes.

    shim -> broker   {"id": "broker/hello", "method": "broker/hello", "params": {...}}       always the first line
    broker -> shim   {"id": "broker/hello", "result": {...}}                              or an error, then EOF
    shim -> broker   {"id": "broker/outcomes", "method": "broker/outcomes",             after a lost connection
                      "params": {"connection": k, "lines": [n, ...], "age_s": s, "epoch": generation}}
    broker -> shim   {"id": "broker/outcomes", "result": {"outcomes": {"n": {"state": ...}}}}

A process that speaks for a guest of this machine (`dial-stdio` under `ssh-command`) says so before anything else; that
lowers the rights of the connection, for good, and does not count as a line of the session:

    dial-stdio -> broker   {"id": "broker/guest", "method": "broker/guest", "params": {"palace": path}}
    broker -> dial-stdio   {"id": "broker/guest", "result": {...}}     or an error: it serves another palace

Every line that a shim sends on a connection has an ordinal: hello is 1, the next line 2, and so on. Both sides count;
no line is rewritten. (secret, connection, ordinal) identifies a write for good: the engine records it in the journal
before and after it runs the write, so the outcome can be proved after shim, broker or engine was killed.

A session belongs to whoever knows its secret, which hello carries and nothing shows. The journal has an HMAC of it for
each line, so that nobody else can ask for an outcome, or record one beforehand. A hello with the name of a live session
and another secret is refused. A session has one connection at a time: a higher number replaces the one before, and a
hello that comes late, with the same number or a lower one, is refused.

A bare MCP client on the socket may skip hello; it has no session to resume. A hello without a secret, as shims of 0.1.0
send it, gets the same: a session without outcomes. A broker that does not know secrets lacks the capability "secret";
a shim takes the outcome of each write that it lost with such a broker as unknown.
`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from .palace import FileView, PalaceIdentity

WIRE_VERSION = 1
HELLO = "broker/hello"
OUTCOMES = "broker/outcomes"
PROOF_PREFIX = ".mempalace-proof-"  # of the file by which a guest proves that it has a folder; a nonce follows
GUEST = "broker/guest"
STATUS = "broker/status"
STOP = "broker/stop"
RESTART = "broker/restart"
EXCLUSIVE = "broker/exclusive"
OPEN = "broker/open"  # a link to the page

# capabilities in the broker's welcome
CAN_TELL_OUTCOMES = "outcomes"
BINDS_SESSIONS = "secret"

# bounds of what a hello or a question may hold
MAX_CONNECTION = 1 << 31
MAX_ORDINAL = 1 << 53
MAX_LINES = 10_000  # of one question: as many as a shim has unanswered requests


class WriteOutcome(str):
    """What became of a write, in the answer to broker/outcomes."""

    __slots__ = ()

    DONE: ClassVar[WriteOutcome]  # it ran; "response" holds what the engine answered, unless that was too large to keep
    NOT_STARTED: ClassVar[WriteOutcome]  # it never reached the engine: send it again
    UNKNOWN: ClassVar[WriteOutcome]  # it had begun, and nobody knows how it ended


WriteOutcome.DONE = WriteOutcome("done")
WriteOutcome.NOT_STARTED = WriteOutcome("not_started")
WriteOutcome.UNKNOWN = WriteOutcome("unknown")


def hello_request(
    *,
    session: str,
    secret: str,
    connection: int,
    identity: PalaceIdentity,
    client: str,
    pid: int,
    view: FileView | None = None,
    read_only: bool = False,
    home: str = "",
) -> dict[str, Any]:
    """The shim's first line. `session`, `secret`: 32 hex digits, for the life of the shim; `connection`: 1, 2, ..."""
    params: dict[str, Any] = {
        "wire": WIRE_VERSION,
        "session": session,
        "secret": secret,
        "connection": connection,
        "palace": identity.as_json(),
        "client": client,
        "pid": pid,
    }
    if home:
        params["home"] = home
    if view is not None:
        params["view"] = view.as_json()
    if read_only:
        params["read_only"] = True
    return {"jsonrpc": "2.0", "id": HELLO, "method": HELLO, "params": params}
