"""Which palace a process means, and how it sees the files.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class PalaceIdentity:
    """A palace and how it was chosen: clients that differ in this must not be mixed silently.

    Args:
        path: real path of the palace directory: what everything of ours is keyed by.
        graph: real path of the knowledge graph that this choice of the palace implies.
        by: how the palace was chosen: "flag", "env", "config" or "default".
        backend: storage backend asked for, or None for mempalace's own choice.
        name: the absolute path by which mempalace opens it, links and all: tunnels and hallways lie beside that name.
    """

    __slots__ = ("backend", "by", "graph", "name", "path")

    def __init__(self, path: str, graph: str, by: str, backend: str | None = None, name: str = "") -> None:
        self.path = path
        self.graph = graph
        self.by = by
        self.backend = backend
        self.name = name or path

    @property
    def options(self) -> list[str]:
        """The options by which a command finds the palace; where no flag named it, the environment does."""
        named = ["--palace", self.name] if self.by == "flag" else []
        return [*named, "--backend", self.backend] if self.backend else named

    def as_json(self) -> dict[str, str | None]:
        """The identity as hello and the discovery record carry it."""
        return {name: getattr(self, name) for name in ("path", "graph", "by", "backend", "name")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PalaceIdentity:
        """Read an identity back. Raises ValueError where path or graph is not a string."""
        path, graph = data.get("path"), data.get("graph")
        if not isinstance(path, str) or not isinstance(graph, str):
            raise ValueError("a palace identity needs path and graph")
        backend, name = data.get("backend"), data.get("name")
        return cls(
            path,
            graph,
            str(data.get("by", "default")),
            backend if isinstance(backend, str) else None,
            name if isinstance(name, str) else "",
        )


class FileView:
    """How one process sees the files. Processes with equal views may exchange paths, others must not.

    Attributes:
        boot: id of its kernel's boot; "" where that is not cheap to find out (macOS).
        mnt: its mount namespace, as "mnt:[4026531841]"; "" where there is only one.
        dev, ino: of the palace directory as the process sees it; 0 where it sees none.
        graph, beside: "dev:ino" of the folder of the knowledge graph, and of the one that holds the palace's name; ""
            where it sees none.
        named: whether the user named the broker, one elsewhere; then its graph is meant, wherever that lies.
    """

    __slots__ = ("beside", "boot", "dev", "graph", "ino", "mnt", "named")

    def __init__(
        self,
        boot: str = "",
        mnt: str = "",
        dev: int = 0,
        ino: int = 0,
        *,
        graph: str = "",
        beside: str = "",
        named: bool = False,
    ) -> None:
        self.boot = boot
        self.mnt = mnt
        self.dev = dev
        self.ino = ino
        self.graph = graph
        self.beside = beside
        self.named = named

    def as_json(self) -> dict[str, str | int]:
        """The view as hello carries it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: object) -> FileView | None:
        """Read a view back; None where there is none, as from an older client."""
        if not isinstance(data, dict):
            return None
        boot, mnt, dev, ino = (data.get(name) for name in ("boot", "mnt", "dev", "ino"))
        if not (isinstance(boot, str) and isinstance(mnt, str)):
            return None
        graph, beside = (str(data.get(name, "")) for name in ("graph", "beside"))
        numbers = (dev if isinstance(dev, int) else 0, ino if isinstance(ino, int) else 0)
        return cls(boot, mnt, *numbers, graph=graph, beside=beside, named=data.get("named") is True)

    def same_kernel(self, other: FileView) -> bool:
        """Whether both processes run under one kernel."""
        return self.boot == other.boot

    def same_files(self, other: FileView) -> bool:
        """Whether a path means the same file to both."""
        return self.same_kernel(other) and self.mnt == other.mnt

    def same_palace(self, other: FileView) -> bool | None:
        """Whether both see the same palace directory, whatever they call it; None where that can't be known.

        Device and inode numbers are comparable under one kernel only: a virtual machine has its own devices.
        """
        if not self.same_kernel(other) or not self.ino or not other.ino:
            return None
        return (self.dev, self.ino) == (other.dev, other.ino)

    def same_graph(self, other: FileView) -> bool | None:
        """Whether both mean the same folder of the knowledge graph; None where that can't be known."""
        return self._same(self.graph, other, other.graph)

    def same_neighbours(self, other: FileView) -> bool | None:
        """Whether the same tunnels and hallways lie beside both names of the palace; None where that can't be known."""
        return self._same(self.beside, other, other.beside)

    def _same(self, folder: str, other: FileView, theirs: str) -> bool | None:
        return folder == theirs if self.same_kernel(other) and folder and theirs else None
