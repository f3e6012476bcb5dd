"""What happens to the calls that were inside an engine when it died.

Replays are safe only because they run on the next engine before anything else: no other call comes between the death
and the second run, so "idempotent" need hold only against the call itself.
"""

from __future__ import annotations

import json
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from ...protocol.tools import Lane, Replay

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .call import Call

STALE_LIBRARY = -32005  # mempalace: the package was upgraded underneath the running process
MAX_ATTEMPTS = 2  # of a write that does no harm twice
MAX_READS = 3  # one may meet two kills by chance
_REPEATED = (
    "the engine died before it could answer, and the delete was repeated: what is not found now may have been deleted "
    "by the first run"
)


class Verdict(Enum):
    """What to do with one call after its engine died.

    ANSWER: the journal proves that it ran: answer from there.
    RERUN: run it again before anything else: it never began, is a read, or is idempotent.
    UNKNOWN: a write that began and must not run twice: report its outcome as unknown.
    POISON: a read that was in dying engines too often: fail it before it kills another one.
    """

    ANSWER = auto()
    RERUN = auto()
    UNKNOWN = auto()
    POISON = auto()


def after_death(call: Call, ended: Mapping[str, bytes | None], begun: Collection[str]) -> Verdict:
    """Decide for one call; `ended` and `begun` are the journal's entries."""
    if call.writes:
        if call.key in ended:
            return Verdict.ANSWER
        if call.key not in begun:
            return Verdict.RERUN
        if call.replay == Replay.IDEMPOTENT and call.attempts < MAX_ATTEMPTS:
            return Verdict.RERUN
        return Verdict.UNKNOWN
    if call.replay == Replay.READ and call.rule.lane != Lane.WAIT and call.attempts >= MAX_READS:
        return Verdict.POISON
    return Verdict.RERUN


def settle_replayed(call: Call, response: bytes) -> bytes:
    """The response to send after a second run: a delete that finds nothing has succeeded, and says it was repeated.

    Changes only calls that ran before (`attempts` > 1) and whose rule has `gone_ok`.
    """
    if call.attempts < MAX_ATTEMPTS or not call.rule.gone_ok:
        return response
    try:
        message: dict[str, Any] = json.loads(response)
        content = message["result"]["content"][0]
        told: Any = json.loads(content["text"])
    except (ValueError, KeyError, IndexError, TypeError):
        return response
    if not isinstance(told, dict) or not ("not found" in content["text"].lower() or told.get("deleted") is False):
        return response
    if told.get("success") is False and "not found" in str(told.get("error", "")).lower():
        del told["error"]
        told["success"] = True
    told["note"] = _REPEATED
    content["text"] = json.dumps(told, indent=2, ensure_ascii=False)
    message["result"].pop("isError", None)
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "backslashreplace")


def refused_as_stale(response: bytes | None) -> bool:
    """Whether an engine refused a call because it was out of date; an earlier one may have run it all the same."""
    if response is None or b"%d" % STALE_LIBRARY not in response:
        return False
    try:
        return bool(json.loads(response)["error"]["code"] == STALE_LIBRARY)
    except (ValueError, KeyError, TypeError):
        return False
