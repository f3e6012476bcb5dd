"""Which kernel owns the palace's files: ours, or another one behind a virtual machine's share or a network filesystem?

Under its kernel, on a local filesystem, locks and sockets work, through a container's bind mount as well. On any other
filesystem - a virtual machine's share, a network filesystem, a type that we don't know - they lie without an error.
Imported late by `mp-shim`.
"""

from __future__ import annotations

import os

from ..errors import BrokerUnavailable
from ..system import kernel
from .machine.path_map import mount_of
from .mounts import filesystem_of, is_local, judge_filesystem, mount_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.palace import PalaceIdentity
    from ..system.paths import StateFiles


class LocalityKind(str):
    """Which kernel owns the files."""

    __slots__ = ()


SAME_KERNEL = LocalityKind("same kernel")
OTHER_KERNEL = LocalityKind("other kernel")


class Locality:
    """Where the palace is, seen from here.

    Attributes:
        kind: SAME_KERNEL, or OTHER_KERNEL, where locks and sockets in the state root mean nothing here.
        filesystem: the type that decided it. why: the same in words.
    """

    __slots__ = ("filesystem", "kind", "why")

    def __init__(self, kind: LocalityKind, filesystem: str, why: str) -> None:
        self.kind = kind
        self.filesystem = filesystem
        self.why = why

    @property
    def foreign(self) -> bool:
        """Whether another kernel owns the files, as far as we know."""
        return self.kind == OTHER_KERNEL

    @classmethod
    def of(cls, path: str, filesystem: str) -> Locality:
        """The locality of a path that lies on a filesystem of this type."""
        local = judge_filesystem(filesystem)
        if local:
            why = f"{path} lies on {filesystem}, a local filesystem: locks and sockets work"
            return cls(SAME_KERNEL, filesystem, why)
        name = filesystem or "an unknown filesystem"
        if local is None:
            return cls(
                OTHER_KERNEL, filesystem, f"{path} lies on {name}, which is not known to be local to this kernel"
            )
        return cls(
            OTHER_KERNEL, filesystem, f"{path} lies on {name}: another kernel owns these files, locks don't reach it"
        )


class NoElectionHere(BrokerUnavailable):
    """Nobody answers here, and the kernel that could elect the palace's broker is another one."""

    def __init__(self, locality: Locality) -> None:
        super().__init__(
            f"no broker answers, and none can be elected from here: {locality.why}.",
            hint="set MEMPALACE_BROKER_SSH_HOST (or ssh_host in broker.toml), or the broker's tcp; "
            "see docs/topologies.md",
        )
        self.locality = locality


def locate(files: StateFiles, graph: str = "") -> Locality:
    """Judge by the filesystems of state root, palace and knowledge graph, as they are mounted now.

    Args:
        graph: the knowledge graph's path; mempalace keeps it under HOME even where the palace is somewhere else.
    """
    found = Locality(SAME_KERNEL, "", "on a Mac, all processes run under the kernel that owns the files")
    for path in (files.palace, files.root, os.path.dirname(graph)):
        if not path or (kernel.MACOS and is_local(path) is not False):  # a Mac's own disk may be of any type
            continue
        found = Locality.of(path, filesystem_of(path))
        if found.foreign:
            break
    return found


def separate_mounts(identity: PalaceIdentity) -> str:
    """Why a lease of the palace would not cover its knowledge graph, "" if it does."""
    folder = os.path.dirname(identity.graph)
    table = mount_table()
    if not folder or not table:
        return ""
    if mount_of(os.path.realpath(identity.path), table) == mount_of(os.path.realpath(folder), table):
        return ""
    return f"the palace {identity.path} and its knowledge graph {identity.graph} lie on different mounts"


def in_container() -> str:
    """The file that marks this as a container, for people; "" if there is none."""
    for mark in ("/.dockerenv", "/run/.containerenv"):
        if os.path.exists(mark):
            return mark
    return ""
