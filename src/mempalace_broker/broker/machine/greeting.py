"""The answer to `broker/hello`: refused with a reason, or a welcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol.hello import BINDS_SESSIONS, CAN_TELL_OUTCOMES, MAX_CONNECTION, WIRE_VERSION
from ...protocol.jsonrpc import whole_number
from ...protocol.palace import PalaceIdentity
from ...protocol.text import printable
from .judge_hello import judge_hello
from .session import MAX_NAME, is_name, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...protocol.palace import FileView
    from .judge_hello import HelloVerdict
    from .scheduler import Limits
    from .session import Session

_MALFORMED = (
    "hello must be the first line, with session (letters and digits), secret (32 to 64 of them) and connection (number)"
)
_UNBOUND = (
    "this client is of another version than the broker and sends no secret: if the connection is lost, the outcome of "
    "a write is unknown. Hint: install the same mempalace-broker on both sides."
)
_ANOTHERS = "this session is another client's"
_NOT_NEWER = "this session has a connection of this number or a higher one already"
_MAX_PID = 1 << 31
_MAX_HOME = 4096


@dataclass(frozen=True, slots=True)
class Host:
    """What a broker says of itself to everyone who greets.

    Attributes:
        identity: the palace served. limits: for the shim's own deadlines. view: of the files, or None where unknown.
        facts: what a welcome carries besides: record id, broker version, pid, lease.
    """

    identity: PalaceIdentity
    limits: Limits
    facts: dict[str, Any]
    view: FileView | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the broker's lease."""
        return int(self.facts["lease"]["epoch"])

    def judge(
        self, params: dict[str, Any], session: Session, others: list[Session], backend: str | None
    ) -> HelloVerdict:
        """Whether a hello is well-formed and fits this broker.

        Args:
            others: see `earlier_connections`. backend: see `judge_hello`.
        """
        verdict = judge_hello(params, self.identity, self.view, backend)
        connection = whole_number(params.get("connection"), 1, MAX_CONNECTION)
        secret = params.get("secret")
        named = is_name(params.get("session")) and (secret is None or is_secret(secret))
        if session.ordinal != 1 or not named or connection is None:
            verdict.code = errors.INVALID_PARAMS
            verdict.message = _MALFORMED
        elif not verdict.code and not all(other.is_of(str(secret)) for other in others):
            verdict.code = errors.INVALID_PARAMS
            verdict.message = _ANOTHERS
        elif not verdict.code and any(other.connection >= connection for other in others):
            verdict.code = errors.INVALID_PARAMS  # two of one number would give two writes one key in the journal
            verdict.message = _NOT_NEWER
        return verdict

    def another(self, params: dict[str, Any]) -> str:
        """Why an admin request is not for this broker: it names another palace; "" where it names this one or none."""
        palace = params.get("palace")
        if not isinstance(palace, dict):
            return ""
        asked = {"wire": WIRE_VERSION, "palace": {**palace, "backend": None}}
        verdict = judge_hello({**asked, "view": params.get("view")}, self.identity, self.view)
        return verdict.message.partition(" Hint: ")[0]  # that is for agents' configurations

    def welcome(self, verdict: HelloVerdict, *, bound: bool) -> dict[str, Any]:
        """The result that a fitting client gets. `bound`: its session has a secret."""
        welcome = {
            **self.facts,
            "wire": WIRE_VERSION,
            "capabilities": [CAN_TELL_OUTCOMES, BINDS_SESSIONS] if bound else [BINDS_SESSIONS],
            "palace": self.identity.as_json(),
            "limits": {name: getattr(self.limits, name) for name in ("wait_s", "run_s", "init_s")},
            "notice": verdict.notice or (None if bound else _UNBOUND),
        }
        if not verdict.same_files:
            welcome["files"] = {"same_kernel": verdict.same_kernel, "palace": self.identity.path, "mounts": []}
        return welcome


def earlier_connections(params: dict[str, Any], sessions: Iterable[Session]) -> list[Session]:
    """The live connections of the session that says hello."""
    if params.get("secret") is None:
        return []
    return [session for session in sessions if session.name and session.name == params.get("session")]


def greeted(session: Session, params: dict[str, Any], verdict: HelloVerdict) -> None:
    """Note in `session` who greeted."""
    client = params.get("client")
    session.greet(
        printable(client, MAX_NAME) if isinstance(client, str) else "",
        whole_number(params.get("pid"), 0, _MAX_PID) or 0,
    )
    if params.get("secret") is not None:
        session.bind(params["session"], params["secret"], params["connection"])
    session.graph_refused = verdict.graph_refused
    home = params.get("home")
    session.home = home if isinstance(home, str) and len(home) <= _MAX_HOME and home.isprintable() else ""
    session.read_only = params.get("read_only") not in (None, False)  # in doubt it is
