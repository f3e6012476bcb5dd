"""Root works on another user's palace (sudo, a container's root): what mempalace makes there belongs to that user.

Otherwise the user's next session, and the user's own mempalace, would be locked out.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from ..system.shared_files import SharedFolder

if TYPE_CHECKING:
    from .adapter import Mempalace

_DEEPEST = 4  # folders in one another, where mempalace keeps files
_ROOT = 0


def owner_is_another(palace: str) -> bool:
    """Whether we are root, and the palace belongs to another user."""
    try:
        return os.geteuid() == _ROOT and os.stat(palace).st_uid != _ROOT and sys.platform == "linux"
    except OSError:
        return False


def give_all_away(mempalace: Mempalace) -> None:
    """Let root's files among those that mempalace keeps belong to the owners of their folders."""
    for path, names in _places(mempalace):
        _give_folder_away(path, names)


def _places(mempalace: Mempalace) -> list[tuple[str, tuple[str, ...]]]:
    """Folders, and what the names of mempalace's files there begin with; () where all are, in folders below it, too."""
    palace, config = mempalace.palace_path(), mempalace.config_path()
    graph = mempalace.graph_path() or os.path.join(palace, "knowledge_graph.")
    return [
        (palace, ()),
        (os.path.join(os.path.expanduser("~"), ".mempalace"), ()),
        (os.path.dirname(os.path.abspath(palace)), ("tunnels.json", "hallways.json")),
        (os.path.dirname(graph), ("knowledge_graph.",)),
        (os.path.dirname(config) or palace, ("config.json",)),
    ]


def _give_folder_away(path: str, names: tuple[str, ...]) -> None:
    try:
        with SharedFolder.open(os.path.realpath(path)) as folder:
            _give_away(folder, names, 0 if names else _DEEPEST)
    except FileNotFoundError:
        return  # not there yet, or no longer
    except OSError as exc:
        print(f"files of root stay in {path}: {exc.strerror or exc}", file=sys.stderr, flush=True)


def _give_away(folder: SharedFolder, names: tuple[str, ...], deepest: int) -> None:
    for name in folder.names():
        if names and not name.startswith(names):
            continue
        found = folder.give_away(name)
        if deepest and found is not None and stat.S_ISDIR(found.st_mode):
            with folder.folder(name) as inner:
                _give_away(inner, (), deepest - 1)
