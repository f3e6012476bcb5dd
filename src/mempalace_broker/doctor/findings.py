"""What a diagnosis consists of.

Severity: "ok" (as it should be), "info" (worth knowing), "warn" (works, but not as it should), "error" (does not work,
or endangers the palace).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, INFO, WARN, ERROR = "ok", "info", "warn", "error"
SEVERITIES = (OK, INFO, WARN, ERROR)


@dataclass(frozen=True)
class Row:
    """One finding."""

    severity: str
    what: str
    detail: str
    hint: str = ""

    def as_json(self) -> dict[str, str]:
        """For --json."""
        return asdict(self)


def alarming(rows: list[Row]) -> bool:
    """Whether any finding is one to act on."""
    return any(row.severity in (WARN, ERROR) for row in rows)
