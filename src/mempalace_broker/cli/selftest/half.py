"""One half of the share checks. The other runs at the same time beyond the kernel boundary; they meet by file names.

A name is made once, so no cache has it. Each half counts by its own clock. What the other side wrote is data: names are
compared, files are opened as everything in shared folders is.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from ...errors import StateRootError, file_hint
from ...system.shared_files import SharedFolder
from .check import Skip

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "mempalace-broker-selftest"
MEET_S = 60.0  # for the person to start the other half
STEP_S = 20.0
_BYE_S = 5.0
LOOK_AGAIN_S = 0.001


class Half:
    """Attributes: me, other: random words, `other` is "" until both have met. lost: why there is no other half.

    Raises:
        StateRootError: the folder in the share can't be made.
    """

    def __init__(self, share: Path) -> None:
        self.path = os.path.join(os.path.realpath(share), FOLDER)  # where others may put a link
        self.me = os.urandom(4).hex()
        self.other = ""
        self.lost = "the halves have not met"
        self._made: set[str] = set()
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except OSError as exc:
            hint = file_hint(exc, "name a folder to which you can write: --share")
            raise StateRootError(f"cannot make {self.path}: {exc.strerror or exc}.", hint=hint) from exc

    @property
    def leads(self) -> bool:
        """Whether this half goes first where only one can, and cleans up."""
        return self.me < self.other

    @property
    def both(self) -> str:
        """A word for names that either half may make."""
        return "-".join(sorted((self.me, self.other)))

    def meet(self, limit_s: float) -> None:
        """Find another half that answers: one that was killed left its name. Raises Skip where none comes."""
        end = time.monotonic() + limit_s
        self.make(f"half-{self.me}")
        while time.monotonic() < end:
            for name in self.names():
                kind, _, who = name.partition("-")
                if kind == "half" and who != self.me and f"greet-{who}-{self.me}" not in self._made:
                    self.make(f"greet-{who}-{self.me}")
                if name.startswith(f"greet-{self.me}-") and f"greet-{name[-8:]}-{self.me}" in self._made:
                    self.other, self.lost = name[-8:], ""
                    return
            time.sleep(LOOK_AGAIN_S * 50)
        self.lost = f"nobody came on the other side within {limit_s:.0f} s"
        raise Skip(self.lost)

    def step(self, name: str) -> float:
        """Begin a step together; the seconds that this half waited. Raises Skip where the other half does not come."""
        if self.lost:
            raise Skip(self.lost)
        begun = time.monotonic()
        self.make(f"{name}.{self.me}")
        if not self.wait(f"{name}.{self.other}", STEP_S):
            self.lost = "the other half left"
            raise Skip(self.lost)
        return time.monotonic() - begun

    def make(self, name: str) -> None:
        """Make an empty file. Raises OSError, FileExistsError where the name is taken."""
        with SharedFolder.open(self.path) as folder:
            os.close(folder.open_new(name))
        self._made.add(name)

    def names(self) -> list[str]:
        """What a fresh listing shows. Raises OSError."""
        with SharedFolder.open(self.path) as folder:
            return folder.names()

    def wait(self, name: str, seconds: float) -> bool:
        """Whether a name is listed within that time."""
        end = time.monotonic() + seconds
        while name not in self.names():
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_AGAIN_S)
        return True

    def remove(self, name: str) -> None:
        """Unlink a name. Raises OSError."""
        with SharedFolder.open(self.path) as folder:
            folder.remove(name)

    def close(self) -> None:
        """Clean up. Where both live, the half that does not lead leaves that to the other one, which may still look."""
        with contextlib.suppress(OSError):  # the share may be gone
            if not self.leads and not self.lost:
                self.make(f"bye-{self.me}")
                return
            alone = not self.wait(f"bye-{self.other}", 0.0 if self.lost else _BYE_S)
            for name in self.names():
                if name in self._made or not alone:
                    self.remove(name)
            os.rmdir(self.path)  # or it is in use
