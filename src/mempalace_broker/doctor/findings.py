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


def ok(what: str, detail: str, hint: str = "") -> Finding:
    """A finding that all is as it should be."""
    return Finding(Severity.OK, what, detail, hint)


def info(what: str, detail: str, hint: str = "") -> Finding:
    """A finding worth knowing."""
    return Finding(Severity.INFO, what, detail, hint)


def warn(what: str, detail: str, hint: str) -> Finding:
    """A finding that something works, but not as it should."""
    return Finding(Severity.WARN, what, detail, hint)


def error(what: str, detail: str, hint: str) -> Finding:
    """A finding that something does not work, or endangers the palace."""
    return Finding(Severity.ERROR, what, detail, hint)
