"""Which palace, and where the files of its broker are: the same answer for every client.

The palace directory is found as mempalace finds it (read in 3.4.0 and 3.11.0):

    --palace > $MEMPALACE_PALACE_PATH > $MEMPALACE_PALACE > $MEMPAL_PALACE_PATH
             > config.json "palace_path" > default

and the knowledge graph lies in the palace if that was chosen by flag, else in ~/.mempalace, always.
Where the two versions differ we follow the newer one, because the engine is told the palace that we found:

* the folder of config.json is $MEMPALACE_CONFIG_DIR, else ~/.mempalace if a mempalace was installed there,
  else $XDG_CONFIG_HOME/mempalace, else ~/.config/mempalace; 3.4.0 knows only ~/.mempalace. They differ on a
  machine that never had a palace, and where those variables are set.
* $MEMPALACE_PALACE is unknown to 3.4.0.
* "~" in config.json is expanded; 3.4.0 takes it literally.

Two deliberate differences from both: "~" in --palace is expanded (as their command line does); their MCP
server looks for a folder named "~" in the agent's working directory. And an absolute palace_path that was
written on the other side of a mount means the palace beside config.json, see `_seen_from_here`.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import PalaceError, StateRootError
from ..protocol.jsonrpc import load_object
from ..protocol.palace import PalaceIdentity
from .kernel import LINUX
from .unix_socket import fits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .private import PrivateFile, PrivateFolder

BY_FLAG = "flag"
BY_ENV = "env"
BY_CONFIG = "config"
BY_DEFAULT = "default"

GRAPH = "knowledge_graph.sqlite3"
_PALACE_MARKS = ("chroma.sqlite3", GRAPH, "tunnels.json", "hallways.json", "broker.lock", "engine.lock")
PALACE_VARIABLES = ("MEMPALACE_PALACE_PATH", "MEMPALACE_PALACE", "MEMPAL_PALACE_PATH")
ROOT_VARIABLE = "MEMPALACE_PATH"

_SHORTER = "give the palace a shorter path."
_CONFIG_LIMIT = 16 * 1024 * 1024
_INSTALL_MARKS = ("config.json", "people_map.json", "palace/chroma.sqlite3")


def home_of(env: Mapping[str, str]) -> str:
    """The home directory as mempalace sees it: $HOME, else the password file's."""
    return env.get("HOME") or os.path.expanduser("~")


def expand(path: str, home: str) -> str:
    """`~` and `~/x` against `home`, `~user` against the password file; a name that no user can have stays as it is."""
    if path == "~" or path.startswith("~/"):
        return (home.rstrip("/") + path[1:]) or "/"
    try:
        return os.path.expanduser(path) if path.startswith("~") else path
    except ValueError:  # a NUL in the name
        return path


def config_dir(env: Mapping[str, str], home: str) -> str:
    """The folder of mempalace's config.json."""
    named = env.get("MEMPALACE_CONFIG_DIR", "")
    if named.strip():
        return expand(named, home)
    legacy = os.path.join(home, ".mempalace")
    if any(os.path.isfile(os.path.join(legacy, mark)) for mark in _INSTALL_MARKS):
        return legacy
    xdg = expand(env.get("XDG_CONFIG_HOME", ""), home)
    if xdg.strip() and os.path.isabs(xdg):  # the XDG specification: ignore relative ones
        return os.path.join(xdg, "mempalace")
    return os.path.join(home, ".config", "mempalace")


def resolve_palace(
    flag: str | None,
    env: Mapping[str, str],
    home: str,
    backend: str | None = None,
    collection: str | None = None,
) -> PalaceIdentity:
    """Find the palace as mempalace does; the module's docstring has the table.

    Args:
        flag: the value of --palace, None or "" if it was not given.
        env: environment variables.
        home: home directory, see `home_of`.
        backend: the value of --backend, if given; mempalace lower-cases it.
        collection: the value of --collection, if given.

    Raises:
        PalaceError: config.json names something that can't be a directory, or a link leads to other files: whoever
            has the state root mounted can put a link there.
    """
    path, by = _choose(flag, env, home)
    try:
        real = os.path.realpath(path)
        graph = os.path.realpath(graph_path(real, by, home))
    except (OSError, ValueError) as exc:
        raise PalaceError(
            f"the palace path {path!r} (by {by}) is unusable: {exc}.", hint="correct it, or give --palace."
        ) from exc
    if os.path.islink(path) and not _may_be_a_palace(real):
        raise PalaceError(
            f"{path} is a link to {real}, which holds other files and no palace.",
            hint=f"remove the link; or, if that is the palace, name {real} itself by --palace.",
        )
    name = (backend or "").strip().lower() or None
    return PalaceIdentity(real, graph, by, name, collection or None)


def _may_be_a_palace(folder: str) -> bool:
    """Whether a folder is missing, empty, or has a file that a palace has; hidden files don't matter."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return True  # whatever it is, opening it reports the error
    return not names or any(name.startswith(_PALACE_MARKS) for name in names)


def graph_path(palace: str, by: str, home: str) -> str:
    """Where mempalace opens the knowledge graph: links in it are not resolved."""
    return os.path.join(palace if by == BY_FLAG else os.path.join(home, ".mempalace"), GRAPH)


def _choose(flag: str | None, env: Mapping[str, str], home: str) -> tuple[str, str]:
    """The palace path before symlinks are resolved, and by which route."""
    if flag:
        return os.path.abspath(expand(flag, home)), BY_FLAG
    for name in PALACE_VARIABLES:
        value = env.get(name)
        if value:
            return os.path.abspath(expand(value, home)), BY_ENV
    folder = config_dir(env, home)
    settings = _read_config(os.path.join(folder, "config.json"))
    if "palace_path" not in settings:
        return os.path.join(folder, "palace"), BY_DEFAULT
    chosen = settings["palace_path"]
    if not isinstance(chosen, str) or not chosen:
        raise PalaceError(
            f"palace_path in {os.path.join(folder, 'config.json')} is {chosen!r}, not a directory.",
            hint="correct or remove it, or give --palace.",
        )
    return _seen_from_here(expand(chosen, home), folder), BY_CONFIG


def _seen_from_here(path: str, folder: str) -> str:
    """The palace that config.json names, where it was written on the other side of a mount.

    `mempalace init` writes /Users/me/.mempalace/palace into /Users/me/.mempalace/config.json; a container that has
    that folder as /home/dev/.mempalace reads a path that names nothing here, but the palace lies beside the file.
    Taken literally it would be a second, empty palace (mempalace makes one). So: only where the named folder and its
    parent do not exist, its last two names are those of a palace beside this very file, and that palace is there.
    """
    if os.path.isdir(path) or os.path.exists(os.path.dirname(path)):
        return path
    root, name = os.path.split(path)
    beside = os.path.join(folder, name)
    return beside if os.path.basename(root) == os.path.basename(folder) and os.path.isdir(beside) else path


def _read_config(path: str) -> dict[str, object]:
    """config.json as a dict; empty where mempalace would go on with its defaults."""
    try:
        with open(path, "rb") as file:  # a symlink is fine here: dotfile managers make them
            return load_object(file.read(_CONFIG_LIMIT))
    except OSError:
        return {}


class StateFiles:
    """Where the files of one broker are.

    Attributes:
        root: the state root. palace: the palace directory P.
        record, socket, start_lock, toml, journal: in the root; but the socket in `private` where its path is too long,
            except on Linux (see unix_socket).
        owner_lock, engine_lock, leases: in P, beside the files they guard, whatever the root is.
    """

    __slots__ = (
        "_env",
        "_name",
        "_private",
        "engine_lock",
        "journal",
        "leases",
        "owner_lock",
        "palace",
        "record",
        "root",
        "socket",
        "start_lock",
        "toml",
    )

    def __init__(self, root: str, palace: str, name: str = "broker", *, env: Mapping[str, str] | None = None) -> None:
        self._env = env or {}
        self._name = name
        self._private: PrivateFolder | None = None
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
    def start_failure(self) -> PrivateFile:
        """Why the last start failed, for clients that waited for it."""
        return self.private.file(f"{self._name}-start-failure.json")

    def in_root(self, path: str) -> str:
        """Where a private file of this name lay before there were private folders."""
        return os.path.join(self.root, os.path.basename(path))

    def direct(self) -> StateFiles:
        """The files of a broker that opens the palace from beyond a kernel boundary.

        The two kernels must never write the same file, because neither sees the other's locks.
        """
        from ..system.kernel import boot_id

        name = f"broker-direct-{boot_id().replace('-', '')[:8] or 'unknown'}"
        return StateFiles(self.root, self.palace, name, env=self._env)

    def prepare(self) -> None:
        """Create the state root, the palace directory and the socket's folder where they are missing (0700).

        An empty palace directory is not a palace yet: mempalace looks at the files in it.

        Raises:
            StateRootError: one of them can't be made, or the socket's folder is open to others.
        """
        for folder in (self.root, self.palace):
            try:
                os.makedirs(folder, 0o700, exist_ok=True)
            except OSError as exc:
                raise StateRootError(
                    f"cannot create {folder}: {exc.strerror or exc}.",
                    hint="give a palace that you may write to (--palace or MEMPALACE_PALACE_PATH).",
                ) from exc
        if os.path.dirname(self.socket) != self.root and (why := self.private.make()):
            raise StateRootError(f"cannot place the broker's socket: {why}.", hint=_SHORTER)

    def check_socket_folder(self) -> None:
        """Make sure that no other user can put a socket under our socket's name, where it is not in the state root.

        Raises:
            StateRootError: its folder is not ours alone.
        """
        if os.path.dirname(self.socket) != self.root and (why := self.private.problem()):
            raise StateRootError(f"the folder of the broker's socket can't be trusted: {why}.", hint=_SHORTER)


def state_root(palace: str, env: Mapping[str, str]) -> str:
    """The folder of record and socket for the palace with this real path.

    By name only: a rule that looked at what exists would send two clients to two places.
    """
    named = env.get(ROOT_VARIABLE, "")
    if named.strip():
        return os.path.realpath(expand(named, home_of(env)))
    parent, name = os.path.split(palace)
    return parent if name == "palace" and parent != "/" else palace


def state_files(identity: PalaceIdentity, env: Mapping[str, str]) -> StateFiles:
    """The files of the broker of this palace. Touches nothing."""
    return StateFiles(state_root(identity.path, env), identity.path, env=env)
