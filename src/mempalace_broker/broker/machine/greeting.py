"""The answer to `broker/hello`: refused with a reason, or a welcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import errors
from ...protocol.hello import WIRE_VERSION
from ...protocol.palace import PalaceIdentity
from .judge_hello import judge_hello
from .session import MAX_NAME, is_name

if TYPE_CHECKING:
    from ...protocol.palace import FileView
    from .judge_hello import HelloVerdict
    from .scheduler import Limits
    from .session import Session

_MALFORMED = "hello must be the first line, with session (letters and digits) and connection (number)"


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

    def judge(self, params: dict[str, Any], session: Session) -> HelloVerdict:
        """Whether a hello is well-formed and fits this broker."""
        verdict = judge_hello(params, self.identity, self.view)
        if session.ordinal != 1 or not is_name(params.get("session")) or _number(params.get("connection")) < 1:
            verdict.code = errors.INVALID_PARAMS
            verdict.message = _MALFORMED
        return verdict

    def welcome(self, verdict: HelloVerdict) -> dict[str, Any]:
        """The result that a fitting client gets."""
        welcome = {
            **self.facts,
            "wire": WIRE_VERSION,
            "capabilities": ["outcomes"],
            "palace": self.identity.as_json(),
            "limits": {name: getattr(self.limits, name) for name in ("wait_s", "run_s", "init_s")},
            "notice": verdict.notice or None,
        }
        if not verdict.same_files:
            welcome["files"] = {"same_kernel": verdict.same_kernel, "palace": self.identity.path, "mounts": []}
        return welcome


def greeted(session: Session, params: dict[str, Any], verdict: HelloVerdict) -> None:
    """Note in `session` who greeted."""
    name, client = str(params["session"]), str(params.get("client", ""))[:MAX_NAME]
    session.greet(name, _number(params["connection"]), client, _number(params.get("pid")))
    session.graph_refused = verdict.graph_refused


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
