"""The names of snapshots of a palace, which say when they were made: 2026-11-27T09-36-01Z, or with -2 appended."""

from __future__ import annotations

import os
import re
import time

FOLDER = "backups"  # in the private folder of the palace, unless the user names another
NAME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d)-(\d\d)-(\d\d)Z(-\d+)?")


def snapshot_names(folder: str) -> list[str]:
    """Return the names of all snapshots in a folder, oldest first; none if it can't be read.

    Those of the future come first of all: the clock went back since, and the next snapshot must count as newer.
    """
    latest = name_at(time.time())
    try:
        found = filter(NAME.fullmatch, os.listdir(folder))
    except OSError:
        return []
    return sorted(found, key=lambda name: (name[: len(latest)] <= latest, name))


def name_at(at: float) -> str:
    """Return the name of a snapshot that is made at `at`, in seconds since 1970."""
    return time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(at))


def made_at(name: str) -> int:
    """When the snapshot of this name was made, in seconds since 1970."""
    from calendar import timegm  # late: only whoever has snapshots needs it

    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a snapshot")
    return timegm(tuple(map(int, match.groups()[:6])))
