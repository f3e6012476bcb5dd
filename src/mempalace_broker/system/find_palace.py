"""Which palace a program means: the one that the mempalace that will run finds.

    --palace > $MEMPALACE_PALACE_PATH > $MEMPALACE_PALACE > $MEMPAL_PALACE_PATH
             > config.json "palace_path" > default, beside config.json

The knowledge graph lies in the palace if that was chosen by flag, else in ~/.mempalace, always. Versions differ (run in
each from 3.4.0 to 3.11.0, see tests/data/palace-choices.json):

    3.6     "~" in config.json is the home; before, a folder of that name
    3.9     config.json may begin with a byte order mark; before, such a file counts as broken
    3.10    config.json lies in $MEMPALACE_CONFIG_DIR, else in ~/.mempalace if a mempalace was installed there, else in
            $XDG_CONFIG_HOME/mempalace, else in ~/.config/mempalace; before, always in ~/.mempalace
    3.11    $MEMPALACE_PALACE counts

On most machines all find the same palace; only where they don't is it asked which version will run. A palace stays
found when that changes: whoever named none, and has none in the default place, gets the one that another version made.

Two deliberate differences from all of them: "~" in --palace is expanded (as their command line does); their MCP
server looks for a folder named "~" in the agent's working directory. And an absolute palace_path that was
written on the other side of a mount means the palace beside config.json, see `_seen_from_here`.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os

from ..errors import PalaceError
from ..protocol.jsonrpc import load_object
from ..protocol.palace import PalaceIdentity
from .kernel import real_path
from .paths import BESIDE_PALACE, GRAPH, expand
from .shared_files import read_followed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Version = tuple[int, ...]
    _Config = tuple[bool, dict[str, object]]  # whether it begins with a byte order mark, and what it says

BY_FLAG = "flag"
BY_ENV = "env"
BY_CONFIG = "config"
BY_DEFAULT = "default"

PALACE_VARIABLES = ("MEMPALACE_PALACE_PATH", "MEMPALACE_PALACE", "MEMPAL_PALACE_PATH")
_SHORT_VARIABLE = "MEMPALACE_PALACE"
_FOLDER_VARIABLE = "MEMPALACE_CONFIG_DIR"

_OLDEST, _TILDE, _MARK, _FOLDERS, _SHORT = (3, 4), (3, 6), (3, 9), (3, 10), (3, 11)
RULES = (_OLDEST, _TILDE, _MARK, _FOLDERS, _SHORT)  # the versions that brought a rule, oldest first

_CONFIG_LIMIT = 16 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_INSTALL_MARKS = ("config.json", "people_map.json", "palace/chroma.sqlite3")
STORES = (  # files by which mempalace recognises a palace, one for each backend
    "chroma.sqlite3",
    "sqlite_exact.sqlite3",
    "milvus.db",
    "milvus_backend.json",
    "pgvector_backend.json",
    "qdrant_backend.json",
)
_PALACE_MARKS = (*STORES, GRAPH, *BESIDE_PALACE, "broker.lock", "engine.lock")


class _Choice:
    """What one version would open.

    Attributes:
        path: as it is named there, links and all. by: how it was chosen.
        settled: the user named it, or the folder that it is in, so that no other version's choice counts.
        problem: why it can't be a palace, else "".
    """

    __slots__ = ("by", "path", "problem", "settled")

    def __init__(self, path: str, by: str, *, settled: bool = True, problem: str = "") -> None:
        self.path = path
        self.by = by
        self.settled = settled
        self.problem = problem

    def means(self, other: _Choice) -> bool:
        """Whether both lead to the same palace; the graph is the same by any of these ways."""
        return (self.path, self.problem) == (other.path, other.problem)


def resolve_palace(
    flag: str | None,
    env: Mapping[str, str],
    home: str,
    backend: str | None = None,
    *,
    version: Callable[[str], Version] | None = None,
) -> PalaceIdentity:
    """Find the palace as mempalace does; the module's docstring has the table.

    Args:
        flag: the value of --palace, None or "" if it was not given.
        env: environment variables.
        home: home directory, see `home_of`.
        backend: the value of --backend, if given; mempalace lower-cases it.
        version: the version of the mempalace that would serve the palace with this real path, () where that is not
            known; asked only where versions differ. Without it, and for (): the newest rules.

    Raises:
        PalaceError: config.json names something that can't be a directory, or a link leads nowhere, or to other files:
            whoever has the state root mounted can put a link there.
    """
    if flag:
        choice = _Choice(os.path.abspath(expand(flag, home)), BY_FLAG)
    else:
        choice = _agreed(_all_choices(env, home), version)
    if choice.problem:
        raise PalaceError(choice.problem, hint="correct or remove it, or give --palace.")
    path, by = choice.path, choice.by
    try:
        real = real_path(path)
        name = os.path.abspath(path)
        if name != path and real_path(name) != real:
            name = real  # dots behind a link: mempalace gets them as text
        graph = real_path(graph_path(real, by, home))
    except (OSError, ValueError) as exc:
        raise PalaceError(
            f"the palace path {path!r} (by {by}) is unusable: {exc}.", hint="correct it, or give --palace."
        ) from exc
    if os.path.islink(path):
        _check_link(path, real)
    return PalaceIdentity(real, graph, by, (backend or "").strip().lower() or None, name)


def _check_link(path: str, real: str) -> None:
    """Refuse a link that leads nowhere: a disk that is not mounted must not get an empty palace in its place; and one
    that leads to other files. Raises PalaceError.
    """
    if not os.path.lexists(real):
        raise PalaceError(
            f"{path} is a link to {real}, which is not there.", hint=f"mount the disk that it is on, or mkdir -p {real}"
        )
    if not _may_be_a_palace(real):
        raise PalaceError(
            f"{path} is a link to {real}, which holds other files and no palace.",
            hint=f"remove the link; or, if that is the palace, name {real} itself by --palace.",
        )


def leads_elsewhere(identity: PalaceIdentity) -> bool:
    """Whether the name by which mempalace opens this palace leads to another one by now: it may be a link."""
    return real_path(identity.name) != identity.path


def graph_path(palace: str, by: str, home: str) -> str:
    """Where mempalace opens the knowledge graph: links in it are not resolved."""
    return os.path.join(palace if by == BY_FLAG else os.path.join(home, ".mempalace"), GRAPH)


def _may_be_a_palace(folder: str) -> bool:
    """Whether a folder is empty, or has a file that a palace has; hidden files don't matter."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return True  # whatever it is, opening it reports the error
    return not names or any(name.startswith(_PALACE_MARKS) for name in names)


# -- which version's choice


def _all_choices(env: Mapping[str, str], home: str) -> list[_Choice]:
    """What each version in RULES would open, and what it would miss because another version made it."""
    folder = config_dir(env, home)
    known: dict[str, _Config] = {}
    own = [_choose(env, home, rules, folder, known) for rules in RULES]
    made = [choice for choice in reversed(own) if _is_palace(choice)] if any(not c.settled for c in own) else []
    return [made[0] if made and not (choice.settled or _is_palace(choice)) else choice for choice in own]


def _agreed(choices: list[_Choice], version: Callable[[str], Version] | None) -> _Choice:
    """The choice that counts: that of the version that would serve the palace to which it leads."""
    choice = choices[-1]
    if version is None or all(choice.means(other) for other in choices):
        return choice
    for _ in range(2):  # once more, because the settings of that palace may name another engine
        running = version(real_path(choice.path))
        known = [found for rules, found in zip(RULES, choices, strict=True) if running >= rules]
        choice = known[-1] if known else choices[0 if running else -1]
    return choice


def _is_palace(choice: _Choice) -> bool:
    return not choice.problem and holds_store(choice.path)


def holds_store(palace: str) -> bool:
    """Return whether mempalace would find its drawers, in any backend, in this folder."""
    return any(os.path.exists(os.path.join(palace, name)) for name in STORES)


# -- one version's choice


def _choose(env: Mapping[str, str], home: str, rules: Version, folder: str, known: dict[str, _Config]) -> _Choice:
    """`folder`: of config.json, by the newest rules. `known`: the files that were read for other versions."""
    for name in PALACE_VARIABLES:
        value = env.get(name)
        if value and (name != _SHORT_VARIABLE or rules >= _SHORT):
            return _Choice(os.path.abspath(expand(value, home)), BY_ENV)
    named = rules >= _FOLDERS and bool(env.get(_FOLDER_VARIABLE, "").strip())
    if rules < _FOLDERS:
        folder = os.path.join(home, ".mempalace")
    settings = _read_config(os.path.join(folder, "config.json"), known, marked=rules >= _MARK)
    if "palace_path" not in settings:
        return _Choice(os.path.join(folder, "palace"), BY_DEFAULT, settled=named)
    chosen = settings["palace_path"]
    if not isinstance(chosen, str) or not chosen:
        problem = f"palace_path in {os.path.join(folder, 'config.json')} is {chosen!r}, not a directory."
        return _Choice("", BY_CONFIG, problem=problem)
    return _Choice(_seen_from_here(expand(chosen, home) if rules >= _TILDE else chosen, folder), BY_CONFIG)


def config_dir(env: Mapping[str, str], home: str) -> str:
    """The folder of mempalace's config.json, by the newest rules."""
    named = env.get(_FOLDER_VARIABLE, "")
    if named.strip():
        return expand(named, home)
    legacy = os.path.join(home, ".mempalace")
    if any(os.path.isfile(os.path.join(legacy, mark)) for mark in _INSTALL_MARKS):
        return legacy
    xdg = expand(env.get("XDG_CONFIG_HOME", ""), home)
    if xdg.strip() and os.path.isabs(xdg):  # the XDG specification: ignore relative ones
        return os.path.join(xdg, "mempalace")
    return os.path.join(home, ".config", "mempalace")


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


def _read_config(path: str, known: dict[str, _Config], *, marked: bool) -> dict[str, object]:
    """config.json as a dict; empty where mempalace would go on with its defaults.

    Args:
        marked: whether a byte order mark is passed over.
    """
    if path not in known:
        try:
            raw = read_followed(path, _CONFIG_LIMIT)  # a symlink is fine here: dotfile managers make them
        except OSError:
            raw = b""
        known[path] = (raw.startswith(_BYTE_ORDER_MARK), load_object(raw))
    has_mark, settings = known[path]
    return {} if has_mark and not marked else settings
