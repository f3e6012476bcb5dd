"""Where the bridge to one target keeps its socket, locks and log. `mp-shim` imports this module: keep it lean."""

from __future__ import annotations

import os

from ...errors import StateRootError
from ...system.private import VARIABLE, PrivateFolder, bridges_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...system.private import PrivateFile
    from .wire import SshTarget

_RUNTIME = "/run/user"
_TMP = "/tmp"
_LONGEST = 71  # bytes of a bridge's folder: ssh binds a name of 32 in it, and a socket's path has at most 103


class BridgeFiles:
    """The files of the bridge to one target, in this container.

    In the user's runtime folder where the system makes one, else, as in containers, in the private folder: nobody else
    can take those. Only where neither will do (no home to write in, one that another kernel shares, a path too long for
    sockets), in /tmp, where the folder is checked each time. Not by XDG_RUNTIME_DIR or TMPDIR: agents do not agree on
    those. Named by host, too, for containers that share a folder.

    Args:
        env: where $MEMPALACE_BROKER_PRIVATE counts.

    Attributes:
        folder: private. socket: where it listens. lock: held for its life. start_lock: held by a client that starts it.
        log: its log.
    """

    __slots__ = ("_private", "folder", "lock", "log", "socket", "start_lock")

    def __init__(self, target: SshTarget, env: Mapping[str, str] = os.environ) -> None:
        digest = _digest(os.fsencode("\0".join([os.uname().nodename, *target.fields()])))
        private = bridges_folder(env)
        runtime = "" if env.get(VARIABLE) else _runtime()
        self._private = private if not runtime and _holds_sockets(private, digest) else None
        base = runtime or (self._private.path if self._private else f"{_TMP}/mempalace-broker-{os.getuid()}")
        self.folder = f"{base}/{digest}"
        self.socket = f"{self.folder}/bridge.sock"
        self.lock = f"{self.folder}/bridge.lock"
        self.start_lock = f"{self.folder}/start.lock"
        self.log = f"{self.folder}/bridge.log"

    @property
    def start_failure(self) -> PrivateFile:
        """Why the last start failed, for clients that waited for it."""
        return PrivateFolder(self.folder, ()).file("start-failure.json")

    def check(self) -> bool:
        """Whether the folder is there. StateRootError: somebody else may put files into it."""
        for folder in (os.path.dirname(self.folder), self.folder):
            try:
                info = os.lstat(folder)
            except FileNotFoundError:
                return False
            if not _is_ours_alone(info):
                hint = f"remove {folder}, or name a folder of your own in {VARIABLE}, for every agent alike."
                raise StateRootError(f"{folder} is not a directory that only you can use.", hint=hint)
        return True

    def prepare(self) -> None:
        """Make the folder (0700). StateRootError: that fails, or it is open to others."""
        if self._private is not None:
            self._private.make()  # whatever is wrong with it, the next lines find out
        try:
            for folder in (os.path.dirname(self.folder), self.folder):
                if not os.path.isdir(folder):
                    os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as exc:
            raise StateRootError(
                f"cannot create {self.folder}: {exc.strerror or exc}.",
                hint=f"name a folder of your own in {VARIABLE}, for every agent alike.",
            ) from exc
        self.check()


def _runtime() -> str:
    """The folder of all bridges in the runtime folder of the user, "" where there is none that is the user's alone."""
    runtime = f"{_RUNTIME}/{os.getuid()}"
    try:
        info = os.lstat(runtime)
    except OSError:
        return ""
    return f"{runtime}/mempalace-broker" if _is_ours_alone(info) else ""


def _is_ours_alone(info: os.stat_result) -> bool:
    """Whether it is a folder of this user's that nobody else may enter."""
    return info.st_uid == os.getuid() and info.st_mode & 0o170077 == 0o040000


def _holds_sockets(folder: PrivateFolder, digest: str) -> bool:
    """Whether bridges can have their sockets in this folder, which need not be there yet."""
    if not folder.path or len(os.fsencode(f"{folder.path}/{digest}")) > _LONGEST or not folder.writable():
        return False
    from ...locality.mounts import is_local

    return is_local(folder.path) is not False


def _digest(words: bytes) -> str:
    """8 hex digits. The C module, because hashlib costs milliseconds."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return str(blake2b(words, digest_size=4).hexdigest())
