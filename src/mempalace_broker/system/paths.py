"""Where the files of a palace's broker are: the same answer for every client; and the `Context` of a program.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import StateRootError, file_hint
from .clock import Clock
from .kernel import LINUX, real_path
from .shared_files import make_folders
from .unix_socket import fits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..protocol.palace import PalaceIdentity
    from .private import PrivateFile, PrivateFolder

GRAPH = "knowledge_graph.sqlite3"
BESIDE_PALACE = ("tunnels.json", "hallways.json")  # mempalace keeps them in the palace's parent
ROOT_VARIABLE = "MEMPALACE_PATH"
_BROKERS = ("broker.", "broker-", "engine.lock", "command.lock")
_SHORTER = "give the palace a shorter path."


def home_of(env: Mapping[str, str]) -> str:
    """The home directory as mempalace sees it: $HOME, else the password file's; "" where neither names one."""
    home = env.get("HOME") or os.path.expanduser("~")
    return "" if home.startswith("~") else os.path.abspath(home)


def is_brokers(name: str) -> bool:
    """Whether a name in the palace's folder is the broker's own."""
    return name.startswith(_BROKERS)


def expand(path: str, home: str) -> str:
    """`~` and `~/x` against `home`, `~user` against the password file; a name that no user can have stays as it is."""
    if path == "~" or path.startswith("~/"):
        return (home.rstrip("/") + path[1:] or "/") if home else path
    try:
        return os.path.expanduser(path) if path.startswith("~") else path
    except ValueError:  # a NUL in the name
        return path


class StateFiles:
    """Where the files of one broker are.

    Attributes:
        root: the state root. palace: the palace directory P.
        record, socket, start_lock, toml, journal: in the root; but the socket in `private` where its path is too long,
            except on Linux (see unix_socket), and never on a share (see `direct`).
        owner_lock, engine_lock, leases: in P, beside the files they guard, whatever the root is.
    """

    def __init__(self, root: str, palace: str, name: str = "broker", *, env: Mapping[str, str] | None = None) -> None:
        self._env = env or {}
        self._name = name
        self._private: PrivateFolder | None = None
        self._sockets: PrivateFolder | None = None  # where the socket is neither in the root nor in `private`
        self.root = root
        self.palace = palace
        self.record = os.path.join(root, f"{name}.json")
        self.start_lock = os.path.join(root, f"{name}.start.lock")
        self.toml = os.path.join(root, "broker.toml")
        self.journal = os.path.join(root, f"{name}.journal")
        self.owner_lock = os.path.join(palace, "broker.lock")
        self.engine_lock = os.path.join(palace, "engine.lock")
        self.leases = os.path.join(palace, "broker-claims")  # the name on disk stays: older brokers look there
        self.socket = os.path.join(root, f"{name}.sock")
        if not LINUX and not fits(self.socket) and fits(self.private.file(f"{name}.sock").path):
            self.socket = self.private.file(f"{name}.sock").path  # there is no way to bind a path that is too long

    @property
    def private(self) -> PrivateFolder:
        """The user's own folder for this palace."""
        if self._private is None:
            from .private import state_folder  # late: whoever finds a running broker needs nothing there

            self._private = state_folder(self.palace, self._env)
        return self._private

    @property
    def log(self) -> str:
        """The broker's log in the private folder, "" where the user has no home."""
        return self.private.file(f"{self._name}.log").path

    @property
    def exit(self) -> PrivateFile:
        """Why the last broker left."""
        return self.private.file(f"{self._name}-exit.json")

    @property
    def answers(self) -> PrivateFile:
        """The answers that never change while the engine is the same."""
        return self.private.file(f"{self._name}-answers.json")

    @property
    def command_lock(self) -> str:
        """Held by a command that has the palace for itself, "" where the user has no home. Some commands replace the
        palace's whole folder, engine.lock and all.
        """
        return self.private.file("command.lock").path

    @property
    def restore(self) -> PrivateFile:
        """The renames of a restore that were decided on, while there are any left."""
        return self.private.file(f"{self._name}-restore.json")

    @property
    def backup(self) -> PrivateFile:
        """A note about the last scheduled snapshot: facts, or why it failed."""
        return self.private.file(f"{self._name}-backup.json")

    @property
    def start_failure(self) -> PrivateFile:
        """Why the last start failed, for clients that waited for it."""
        return self.private.file(f"{self._name}-start-failure.json")

    def in_root(self, path: str) -> str:
        """Where a private file of this name lay before there were private folders."""
        return os.path.join(self.root, os.path.basename(path))

    def direct(self, is_local: Callable[[str], bool | None]) -> StateFiles:
        """The files of a broker that opens the palace from beyond a kernel boundary.

        The two kernels must never write the same file, because neither sees the other's locks. The socket is not on
        the share, for some shares refuse to bind or to connect one: only who has the same home, or the same /tmp, and
        so the same container, reaches this broker.

        Args:
            is_local: `locality.mounts.is_local`.
        """
        from ..system.kernel import boot_id
        from .private import temp_folder

        name = f"broker-direct-{boot_id().replace('-', '')[:8] or 'unknown'}"
        files = StateFiles(self.root, self.palace, name, env=self._env)
        at_home = files.private.writable() and is_local(files.private.path)
        files._sockets = files.private if at_home else temp_folder(self.palace)
        files.socket = files._sockets.file(f"{name}.sock").path
        return files

    def prepare(self) -> None:
        """Create the state root, the palace directory and the socket's folder where they are missing (0700).

        An empty palace directory is not a palace yet: mempalace looks at the files in it.

        Raises:
            StateRootError: one of them can't be made, or the socket's folder is open to others.
        """
        for folder in (self.root, self.palace):
            try:
                make_folders(folder)
            except OSError as exc:
                elsewhere = "give a palace that you may write to (--palace or MEMPALACE_PALACE_PATH)"
                raise StateRootError(
                    f"cannot create {folder}: {exc.strerror or exc}.", hint=file_hint(exc, elsewhere)
                ) from exc
        if os.path.dirname(self.socket) != self.root and (why := (self._sockets or self.private).make()):
            raise StateRootError(f"cannot place the broker's socket: {why}.", hint=_SHORTER)

    def check_socket_folder(self) -> None:
        """Make sure that no other user can put a socket under our socket's name, where it is not in the state root.

        Raises:
            StateRootError: its folder is not ours alone.
        """
        if os.path.dirname(self.socket) != self.root and (why := (self._sockets or self.private).problem()):
            raise StateRootError(f"the folder of the broker's socket can't be trusted: {why}.", hint=_SHORTER)


def state_root(palace: str, env: Mapping[str, str]) -> str:
    """The folder of record and socket for the palace with this real path.

    By name only: a rule that looked at what exists would send two clients to two places.
    """
    named = env.get(ROOT_VARIABLE, "")
    if named.strip():
        return real_path(expand(named, home_of(env)))
    parent, name = os.path.split(palace)
    return parent if name == "palace" and parent != "/" else palace


def state_files(identity: PalaceIdentity, env: Mapping[str, str]) -> StateFiles:
    """The files of the broker of this palace. Touches nothing."""
    return StateFiles(state_root(identity.path, env), identity.path, env=env)


class Context:
    """One palace as this program sees it. Not to be changed: `replace` makes another.

    Attributes:
        identity: the palace and how it was chosen.
        env: environment variables.
        clock: the time.
        files: the files of the palace's broker, by default where `identity` and `env` put them.
    """

    __slots__ = ("clock", "env", "files", "identity")

    def __init__(
        self,
        identity: PalaceIdentity,
        env: Mapping[str, str],
        *,
        clock: Clock | None = None,
        files: StateFiles | None = None,
    ) -> None:
        self.identity = identity
        self.env = env
        self.clock = clock or Clock()
        self.files = files or state_files(identity, env)

    def replace(self, *, env: Mapping[str, str] | None = None, files: StateFiles | None = None) -> Context:
        """The same palace with another environment, or with other files."""
        return Context(self.identity, self.env if env is None else env, clock=self.clock, files=files or self.files)
