"""Where the bridge to one target keeps its socket, locks and log. `mp-shim` imports this module: keep it lean."""

from __future__ import annotations

import os

from ...errors import StateRootError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...system.private import PrivateFile
    from .wire import SshTarget

_RUNTIME = "/run/user"


class BridgeFiles:
    """The files of the bridge to one target, in this container.

    In the user's runtime folder where the system makes one, which nobody else can take; else, as in containers, in
    /tmp, where the folder is checked each time. Not by XDG_RUNTIME_DIR or TMPDIR: agents do not agree on those. Named
    by host, too, for containers that share a /tmp.

    Attributes:
        folder: private. socket: where it listens. lock: held for its life. start_lock: held by a client that starts it.
        log: its log.
    """

    __slots__ = ("folder", "lock", "log", "socket", "start_lock")

    def __init__(self, target: SshTarget) -> None:
        words = "\0".join([os.uname().nodename, *target.fields()])
        self.folder = f"{_base()}/{_digest(os.fsencode(words))}"
        self.socket = f"{self.folder}/bridge.sock"
        self.lock = f"{self.folder}/bridge.lock"
        self.start_lock = f"{self.folder}/start.lock"
        self.log = f"{self.folder}/bridge.log"

    @property
    def start_failure(self) -> PrivateFile:
        """Why the last start failed, for clients that waited for it."""
        from ...system.private import PrivateFolder

        return PrivateFolder(self.folder, ()).file("start-failure.json")

    def check(self) -> bool:
        """Whether the folder is there. StateRootError: somebody else may put files into it."""
        for folder in (os.path.dirname(self.folder), self.folder):
            try:
                info = os.lstat(folder)
            except FileNotFoundError:
                return False
            if info.st_uid != os.getuid() or info.st_mode & 0o170077 != 0o040000:
                raise StateRootError(f"{folder} is not a directory that only you can use.", hint=f"remove {folder}.")
        return True

    def prepare(self) -> None:
        """Make the folder (0700). StateRootError: that fails, or it is open to others."""
        try:
            for folder in (os.path.dirname(self.folder), self.folder):
                if not os.path.isdir(folder):
                    os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as exc:
            raise StateRootError(
                f"cannot create {self.folder}: {exc.strerror or exc}.", hint=f"make {_base()} writable."
            ) from exc
        self.check()


def _base() -> str:
    """The folder of all bridges."""
    runtime = f"{_RUNTIME}/{os.getuid()}"
    try:
        info = os.lstat(runtime)
    except OSError:
        info = None
    if info is not None and info.st_uid == os.getuid() and info.st_mode & 0o170077 == 0o040000:
        return f"{runtime}/mempalace-broker"
    return f"/tmp/mempalace-broker-{os.getuid()}"


def _digest(words: bytes) -> str:
    """16 hex digits. The C module, because hashlib costs milliseconds."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return str(blake2b(words, digest_size=8).hexdigest())
