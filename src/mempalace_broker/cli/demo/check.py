"""One thing that the demo proves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """Something that must hold."""

    name: str
    ok: bool
    detail: str
