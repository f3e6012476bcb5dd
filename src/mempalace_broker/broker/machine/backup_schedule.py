"""When the next scheduled snapshot is due. Pure. Times in seconds since 1970: a schedule outlives its broker."""

from __future__ import annotations

from typing import Any

_RETRY_S = 3600.0  # after a snapshot that failed
_NO_PALACE_S = 60.0  # until the next look for one
_MOST_CHARS = 1000  # of an error


class BackupSchedule:
    """The schedule of one palace.

    Args:
        every_s: seconds from one snapshot to the next; 0 = there is no schedule.
        note: the last result of `note`, of an earlier broker.
    """

    def __init__(self, every_s: float, note: dict[str, Any]) -> None:
        self._every_s = every_s
        self._made_at = _number(note, "made_at")
        self._tried_at = _number(note, "tried_at")
        self._skipped_at = self._pause_s = 0.0
        self._last = note
        self.running = False

    @property
    def on(self) -> bool:
        """Whether there is a schedule."""
        return self._every_s > 0

    def due_in(self, now: float) -> float:
        """Seconds until the next snapshot, 0 if one is due. A last time in the future means a clock that went back."""
        if self._last.get("error") and 0 < self._tried_at <= now:
            return _left(self._tried_at, min(self._every_s, _RETRY_S), now)
        return max(_left(self._made_at, self._every_s, now), _left(self._skipped_at, self._pause_s, now))

    def changed_since(self, changed_at: float, now: float) -> bool:
        """Return whether a palace last written to at `changed_at` (0: never) has anything that no snapshot has.

        Yes if the clock went back since the last one: what was written then looks older than it.
        """
        unsure = bool(self._last.get("error")) or self._made_at > now
        return changed_at > 0 and (unsure or changed_at >= self._made_at)

    def skipped(self, now: float) -> None:
        """Skip this snapshot: nothing has changed since the last one, or there is no palace yet."""
        self._skipped_at, self._pause_s = now, self._every_s if self._made_at else _NO_PALACE_S

    def made(self, now: float, facts: dict[str, Any]) -> None:
        """Note a new snapshot. `facts`: as `backup create --json` printed them."""
        self._made_at = self._tried_at = now
        kept = ("name", "path", "bytes", "pause_s", "removed")
        self._last = {"made_at": now, "tried_at": now, **{name: facts.get(name) for name in kept}}

    def failed(self, now: float, why: str) -> None:
        """Note a failed attempt; the facts of the last good snapshot stay."""
        self._tried_at = now
        self._last = {**self._last, "tried_at": now, "error": why[:_MOST_CHARS]}

    def note(self) -> dict[str, Any]:
        """Return the note for the next broker."""
        return self._last

    def as_json(self, now: float) -> dict[str, Any] | None:
        """Return the schedule for `status`; None without one."""
        if not self.on:
            return None
        return {
            "every_s": self._every_s,
            "running": self.running,
            "due_in_s": round(self.due_in(now), 1),
            "made_at": self._made_at or None,
            "name": self._last.get("name"),
            "path": self._last.get("path"),
            "bytes": self._last.get("bytes"),
            "pause_s": self._last.get("pause_s"),
            "error": self._last.get("error"),
        }


def _left(began: float, pause_s: float, now: float) -> float:
    """Seconds that are left of a pause; 0 if it never began (0), or in the future."""
    return max(0.0, began + pause_s - now) if 0 < began <= now else 0.0


def _number(note: dict[str, Any], name: str) -> float:
    value = note.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
