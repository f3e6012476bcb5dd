"""What to do with the calls that were inside an engine when it died. One pure function; the hub carries it out.

Replays are safe only because they run on the next engine before anything else: no other call comes between the death
and the second run, so "idempotent" need hold only against the call itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...protocol.tools import Replay

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .scheduler import Call

ANSWER, AGAIN, LOST, POISON = "answer", "again", "lost", "poison"
MAX_ATTEMPTS = 2
_REPEATED = (
    "the engine died before it could answer, and the delete was repeated: what is not found now may have been deleted "
    "by the first run"
)


def after_death(call: Call, ended: Mapping[str, bytes | None], begun: Collection[str]) -> str:
    """Decide for one call.

    Returns:
        ANSWER: the journal holds its response (or that it ran): answer with that.
        AGAIN:  run it again before anything else: it never started, is a read, or is idempotent.
        LOST:   a write that began and must not run twice: the outcome is unknown.
        POISON: a read that was in a dying engine twice: fail it, or it kills the next one too.
    """
    if call.writes:
        if call.key in ended:
            return ANSWER
        if call.key not in begun:
            return AGAIN
        if call.replay == Replay.IDEMPOTENT and call.attempts < MAX_ATTEMPTS:
            return AGAIN
        return LOST
    if call.replay == Replay.READ and call.attempts >= MAX_ATTEMPTS:
        return POISON
    return AGAIN


def settle_replayed(call: Call, response: bytes) -> bytes:
    """The response of a second run: a delete that finds nothing has succeeded; one of many says that it was repeated.

    Only for calls that ran before (`attempts` > 1) and whose rule says `gone_ok`; everything else passes unchanged.
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
