"""Where are we, seen from the palace: under the kernel that owns its files, or behind a kernel boundary?

Under its kernel, on a local filesystem, locks and sockets work, through a container's bind mount as well. On anything
else - a virtual machine's share, a network filesystem, a type that we don't know - they lie without an error.
Imported late by `mp-shim`.
"""

from __future__ import annotations

import os
import sys

from ..errors import BrokerUnavailable
from .machine.path_map import mount_of
from .mounts import filesystem_of, judge_kind, mount_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.palace import PalaceIdentity
    from ..system.paths import StateFiles

SAME = "same kernel"
FOREIGN = "foreign"


class Place:
    """SAME or FOREIGN (`kind`), the `filesystem` that decided it, and `why` in words."""

    __slots__ = ("filesystem", "kind", "why")

    def __init__(self, kind: str, filesystem: str, why: str) -> None:
        self.kind = kind
        self.filesystem = filesystem
        self.why = why

    @property
    def foreign(self) -> bool:
        """Whether locks and sockets in the state root mean nothing here."""
        return self.kind == FOREIGN


class PalaceElsewhere(BrokerUnavailable):
    """Nobody answers here, and here is not where the palace's broker can be elected."""


def place_of(files: StateFiles, graph: str = "") -> Place:
    """Judge by the filesystems of state root, palace and knowledge graph, as they are mounted now.

    Args:
        graph: the knowledge graph's path; mempalace keeps it under HOME even where the palace is elsewhere.
    """
    if sys.platform == "darwin":
        return Place(SAME, "", "on a Mac, all processes run under the kernel that owns the files")
    judged = Place(SAME, "", "")
    for path in (files.palace, files.root, os.path.dirname(graph)):
        if not path:
            continue
        judged = judge(path, filesystem_of(path))
        if judged.foreign:
            break
    return judged


def judge(path: str, kind: str) -> Place:
    """The place by the type of the filesystem that holds `path`; pure."""
    local = judge_kind(kind)
    if local:
        return Place(SAME, kind, f"{path} lies on {kind}, a local filesystem: locks and sockets work")
    name = kind or "an unknown filesystem"
    if local is None:
        return Place(FOREIGN, kind, f"{path} lies on {name}, which is not known to be local to this kernel")
    return Place(FOREIGN, kind, f"{path} lies on {name}: another kernel owns these files, locks don't reach it")


def parted(identity: PalaceIdentity) -> str:
    """Why a lease of the palace would not cover its knowledge graph, "" if it does."""
    folder = os.path.dirname(identity.graph)
    table = mount_table()
    if (
        not folder
        or not table
        or mount_of(os.path.realpath(identity.path), table) == mount_of(os.path.realpath(folder), table)
    ):
        return ""
    return f"the palace {identity.path} and its knowledge graph {identity.graph} lie on different mounts"


def elsewhere(place: Place) -> PalaceElsewhere:
    """The error for whoever has no other route."""
    return PalaceElsewhere(
        f"no broker answers, and none can be elected from here: {place.why}.",
        hint="set MEMPALACE_BROKER_SSH_HOST (or ssh_host in broker.toml), or the broker's tcp; see docs/topologies.md",
    )


def in_container() -> str:
    """What says that this is a container, for people; "" if nothing does."""
    for mark in ("/.dockerenv", "/run/.containerenv"):
        if os.path.exists(mark):
            return mark
    return ""
