"""How a process sees the files: two processes with the same view may exchange paths, others must not.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations


class View:
    """One process's view.

    Attributes:
        boot: id of its kernel's boot; "" where that is not cheap to tell (macOS).
        mnt: its mount namespace, as "mnt:[4026531841]"; "" where there is only one.
        dev, ino: of the palace directory as it sees it; 0 where it sees none.
    """

    __slots__ = ("boot", "dev", "ino", "mnt")

    def __init__(self, boot: str = "", mnt: str = "", dev: int = 0, ino: int = 0) -> None:
        self.boot = boot
        self.mnt = mnt
        self.dev = dev
        self.ino = ino

    def as_json(self) -> dict[str, str | int]:
        """As it stands in hello."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: object) -> View | None:
        """Read one back; None where there is none, as from an older client."""
        if not isinstance(data, dict):
            return None
        boot, mnt, dev, ino = (data.get(name) for name in ("boot", "mnt", "dev", "ino"))
        if not (isinstance(boot, str) and isinstance(mnt, str)):
            return None
        return cls(boot, mnt, dev if isinstance(dev, int) else 0, ino if isinstance(ino, int) else 0)

    def same_kernel(self, other: View) -> bool:
        """Whether both run under one kernel."""
        return self.boot == other.boot

    def same_files(self, other: View) -> bool:
        """Whether a path means the same to both."""
        return self.same_kernel(other) and self.mnt == other.mnt

    def same_palace(self, other: View) -> bool | None:
        """Whether both see the same directory, whatever they call it; None where that can't be told.

        Device and inode number are comparable under one kernel only: a virtual machine has its own devices.
        """
        if not self.same_kernel(other) or not self.ino or not other.ino:
            return None
        return (self.dev, self.ino) == (other.dev, other.ino)
