"""What belongs to a palace, under which name it lies in a snapshot, and how it has to be copied."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from ...system.find_palace import config_dir
from ...system.paths import BESIDE_PALACE, home_of, is_brokers
from .copying import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.paths import Context

SIDE_FILES = ("-wal", "-shm", "-journal")
_SET_ASIDE = (".corrupt", ".drift", "quarantine")
_WAL_MARK = (18, b"\x02\x02")  # offset and content, in the header of a SQLite file


class Kind(StrEnum):
    """How a part is copied."""

    DATABASE = "database"  # its file, while no transaction is under way
    WAL_DATABASE = "wal database"  # by SQLite, from a transaction that only reads
    BULK = "bulk"  # ahead, and then again if it has changed
    FILE = "file"


class Part(NamedTuple):
    """One file: `name` in the snapshot, "palace/..." or the like; `path` where it lies; `root` below which others may
    put links, "" for its own folder.
    """

    name: str
    path: str
    kind: Kind
    root: str = ""


def parts_of(context: Context) -> list[Part]:
    """All files of a palace that a snapshot holds. Raises OSError where the palace can't be read."""
    palace, graph = context.identity.path, context.identity.graph
    found = list(_in_palace(palace))
    if os.path.isfile(graph) and os.path.dirname(graph) != palace:
        found.append(Part(f"graph/{os.path.basename(graph)}", graph, _kind_of(graph)))
    beside = os.path.dirname(palace)
    there = [name for name in BESIDE_PALACE if os.path.isfile(os.path.join(beside, name))]
    found += [Part(f"beside/{name}", os.path.join(beside, name), Kind.FILE) for name in there]
    # mempalace, too, reads it where the user's own links lead to it
    config = os.path.realpath(os.path.join(config_dir(context.env, home_of(context.env)), "config.json"))
    if os.path.isfile(config):
        found.append(Part("config/config.json", config, Kind.FILE))
    return found


def live_path(context: Context, name: str) -> str:
    """Where a part of a snapshot belongs, "" for one that is not put back: config.json says where the palace is."""
    place, _, rest = name.partition("/")
    if place == "palace":
        return os.path.join(context.identity.path, rest)
    if place == "graph":
        return context.identity.graph
    return os.path.join(os.path.dirname(context.identity.path), rest) if place == "beside" else ""


def is_safe(name: str) -> bool:
    """Whether a name from a manifest stays in its snapshot."""
    steps = name.split("/")
    return steps[0] in ("palace", "graph", "beside", "config") and len(steps) > 1 and not {"", ".", ".."} & set(steps)


def _in_palace(palace: str) -> Iterator[Part]:
    for folder, folders, files in os.walk(palace):
        below = os.path.relpath(folder, palace)
        if below == ".":
            folders[:] = [name for name in folders if not is_brokers(name) and not any(m in name for m in _SET_ASIDE)]
            files[:] = [name for name in files if not is_brokers(name)]
        for name in sorted(files):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and not name.endswith(SIDE_FILES):
                yield Part(os.path.normpath(f"palace/{below}/{name}"), path, _kind_of(path, palace), palace)


def _kind_of(path: str, root: str = "") -> Kind:
    if path.endswith((".bin", ".pickle")):
        return Kind.BULK
    if not path.endswith((".sqlite3", ".db")):
        return Kind.FILE
    offset, mark = _WAL_MARK
    with open_source(path, root) as file:
        file.seek(offset)
        return Kind.WAL_DATABASE if file.read(len(mark)) == mark else Kind.DATABASE
