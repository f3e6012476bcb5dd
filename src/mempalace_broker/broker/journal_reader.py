"""Reads the journal of writes that engines keep: what they have begun and ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ..protocol import journal
from ..system.shared_files import SharedFolder

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from ..system.clock import Clock

_LIMIT = 4 * journal.ROTATE_BYTES


class JournalEntries(NamedTuple):
    """Writes by key: `ended` with their responses (None: not kept), `begun` and not ended.

    covered_from: monotonic seconds since when nothing is missing.
    """

    ended: Mapping[str, bytes | None]
    begun: set[str]
    covered_from: float


def read_journal(path: str, clock: Clock, log: logging.Logger) -> JournalEntries | None:
    """Read the journal at `path` and its predecessor; None where there is none, or it can't be read."""
    covered_from = float("-inf")
    folder, name = os.path.split(path)
    older = name + ".1"
    try:
        with SharedFolder.open(folder) as root:
            data = root.read(older, _LIMIT) or b""
            found = root.look(older)
            if data and found is not None:
                age = max(0.0, clock.wall() - found.st_mtime)
                covered_from = clock.monotonic() - age
            current = root.read(name, _LIMIT)
    except FileNotFoundError:
        return None
    except OSError as exc:
        log.error("cannot read the journal of writes: %s; earlier outcomes are unknown", exc)
        return None
    if current is None:
        return None
    return JournalEntries(*journal.parse(data + current), covered_from)
