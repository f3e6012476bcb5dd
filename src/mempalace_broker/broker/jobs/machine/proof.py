"""Whether a diary entry of unknown outcome is stored: mempalace's own `diary_read` shows it.

An engine died, or was ended, while it wrote the entry, so nobody writes it any more. mempalace stores all parts of an
entry in one transaction and splits a long one into parts that lie end to end; `diary_read` shows each part as an entry
of its own, newest first, at most 100, and in each version those of one agent, whatever the case of its name.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum, auto
from typing import Any

from ....protocol.jsonrpc import TOOLS_CALL, load
from ....protocol.tools import rule_for

DIARY_TOOL = "mempalace_diary_write"
_MOST = 100  # that mempalace shows
_SEEN = 10_000  # parts that 3.8 and 3.9 look through, whichever these are
_CLOCK_S = 1.0  # by which the system's clock may be set meanwhile
_ZONES_S, _FARTHEST_S = 900.0, 26 * 3600.0  # by multiples of that, up to that, time zones differ
_NO_PALACE = "no palace found"
_SURROGATE = re.compile("[\ud800-\udfff]")  # mempalace replaces these


class Proof(Enum):
    """What the store shows of an entry.

    STORED, ABSENT: it is stored, it is not: both are certain.
    OPEN: others may hide it, or are too much like it.
    UNREAD: the store could not be read.
    """

    STORED = auto()
    ABSENT = auto()
    OPEN = auto()
    UNREAD = auto()


def question(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the request that shows whether an entry is stored. `arguments`: those of the `diary_write`."""
    asked = {"agent_name": arguments.get("agent_name"), "last_n": _MOST}
    if arguments.get("wing"):
        asked["wing"] = arguments["wing"]
    params = {"name": rule_for(DIARY_TOOL).check_with, "arguments": asked}
    return {"jsonrpc": "2.0", "id": 2, "method": TOOLS_CALL, "params": params}


def found(result: object, arguments: dict[str, Any], since: float, now: float) -> Proof:
    """Return what the result of `question` shows.

    Args:
        since, now: seconds since 1970; the entry can't have been stored at another time.
    """
    told = _told(result)
    if told is None:
        return Proof.UNREAD
    if "entries" not in told:
        absent = _NO_PALACE in str(told.get("error")).lower()
        return Proof.ABSENT if absent else Proof.UNREAD
    text = _SURROGATE.sub("\ufffd", str(arguments.get("entry")))
    topic = str(arguments.get("topic") or "general").strip()
    parts: dict[str, int] = {}  # characters of what may be the entry, by when it was stored
    oldest = float("inf")
    for shown in told["entries"]:
        stamp, content = str(shown.get("timestamp")), shown.get("content")
        oldest = min(oldest, _time(stamp))
        if shown.get("topic") == topic and isinstance(content, str) and content in text:
            parts[stamp] = parts.get(stamp, 0) + len(content)
    verdicts = {_at(_time(stamp), since, now) for stamp, size in parts.items() if size == len(text)}
    shows_all = (len(told["entries"]) < _MOST or oldest < since - _CLOCK_S) and told.get("total") != _SEEN
    if Proof.STORED in verdicts:
        return Proof.STORED
    return Proof.ABSENT if shows_all and Proof.OPEN not in verdicts else Proof.OPEN


def _at(at: float, since: float, now: float) -> Proof:
    """What an entry of that text shows that was stored at `at`. The engine's settings may give it another time zone."""
    early = since - _CLOCK_S - at
    if early <= 0:
        return Proof.STORED if at <= now + _CLOCK_S else Proof.OPEN
    shifted = early <= _FARTHEST_S and -early % _ZONES_S <= now - since + 2 * _CLOCK_S
    return Proof.OPEN if shifted else Proof.ABSENT


def _told(result: object) -> dict[str, Any] | None:
    """Return what `diary_read` told; None for anything else."""
    try:
        told = load(str(result["content"][0]["text"]).encode())  # type: ignore[index]  # TypeError is caught
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    if not isinstance(told, dict):
        return None
    entries = told.get("entries", [])
    return told if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) else None


def _time(stamp: object) -> float:
    """Seconds since 1970 of a local time, the later one where a change of clocks makes two of it; 0.0 for any other."""
    try:
        at = datetime.fromisoformat(str(stamp))
    except ValueError:
        return 0.0
    return max(at.replace(fold=fold).timestamp() for fold in (0, 1))
