"""Findings: what `doctor` reports, each with its severity and its hint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"  # as it should be
    INFO = "info"  # worth knowing
    WARN = "warn"  # works, but not as it should
    ERROR = "error"  # does not work, or endangers the palace

    @property
    def is_alarming(self) -> bool:
        """Whether the user should act."""
        return self in (Severity.WARN, Severity.ERROR)


@dataclass(frozen=True)
class Finding:
    """One finding: what was looked at, what was seen, and what helps."""

    severity: Severity
    what: str
    detail: str
    hint: str = ""

    def as_json(self) -> dict[str, str]:
        """For --json."""
        return asdict(self)
