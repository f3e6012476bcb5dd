"""The search configuration that this engine works with, as mempalace's own commands compare it with theirs.

They send a search to a hub only where the two are equal. mempalace reads its configuration once, so a changed
config.json makes this engine search differently from a new process: then it has to be replaced.
"""

from __future__ import annotations

import sys
from typing import Any


def fingerprint(config: Any) -> str | None:
    """mempalace's digest of a configuration; None before 3.9, and where it can't be told."""
    try:
        found = getattr(config, "search_config_fingerprint", None)
    except Exception as exc:  # noqa: BLE001 - then its commands search by themselves
        print(f"the search configuration can't be told: {exc}", file=sys.stderr)
        return None
    return found if isinstance(found, str) else None


def is_outdated(config: Any, palace: str) -> bool:
    """Whether a new process would search differently from this one, which has `config`."""
    mine = fingerprint(config)
    if mine is None:
        return False
    try:
        fresh = fingerprint(type(config)(palace_path=palace))
    except Exception as exc:  # noqa: BLE001 - a file that can't be read now: the next engine will say so
        print(f"the configuration can't be read again: {exc}", file=sys.stderr)
        return False
    return fresh is not None and fresh != mine
