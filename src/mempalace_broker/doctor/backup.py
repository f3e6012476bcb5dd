"""Findings about scheduled snapshots."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .findings import info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts
    from .findings import Finding

_BY_HAND = "mempalace-broker backup create"


def backup(facts: Facts) -> Iterator[Finding]:
    """Report whether there is a schedule, and whether the last snapshot succeeded."""
    entry = facts.settings.get("backup_every_h")
    every_h = entry.get("value") if isinstance(entry, dict) else 0
    if facts.locality.foreign or not facts.has_palace:
        return
    if not isinstance(every_h, int) or not every_h:
        yield info("snapshots", "none are scheduled", f"set backup_every_h = 24 in config.toml, or: {_BY_HAND}")
        return
    made_at, error = facts.last_backup.get("made_at"), facts.last_backup.get("error")
    if error:
        yield warn("snapshots", f"the last one failed: {error}", _BY_HAND)
    elif not isinstance(made_at, int | float):
        yield info("snapshots", f"one every {every_h} h, none yet; a running broker makes it")
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made_at))
        yield ok("snapshots", f"one every {every_h} h, the last is {facts.last_backup.get('name')}, made at {when}")
