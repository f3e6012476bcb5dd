"""Looks at a palace's stores before an engine opens them.

The engine opens them by name, follows links and writes in place: a link under such a name is another file of the user's
that it would read or destroy. Whoever reaches the palace can put one there. So an engine opens them only where all of
them are regular files of ours. What is swapped later, while they are open, this can't see (engine/write_limits does).
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from ..errors import StateRootError
from .file_trust import distrust_file, distrust_names, trusted_owners
from .shared_files import SharedFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MILVUS = "milvus.db"  # a file, or since Milvus Lite 3 a folder
_DATABASES = ("chroma.sqlite3", "logstream.sqlite3", "sqlite_exact.sqlite3", _MILVUS)
_DEEPEST = 8  # folders within that of Milvus
SERVERS = ("pgvector", "qdrant", "milvus")  # backends that may be a server; milvus may also be a file
_SUFFIXES = ("", "-wal", "-shm", "-journal")
UUID_CHARS = 36
_UUID_DASHES = 4


def check_stores(palace: str, graph: str) -> list[str]:
    """Check the vector database and its indexes in `palace`, and the knowledge graph; what is missing passes.

    Args:
        palace: its real path. graph: as mempalace opens it; the user's own links to its folder are followed.

    Returns:
        those of them that have another name, as a snapshot of hard links gives them.

    Raises:
        StateRootError: one of them is a link, not a regular file, another user's, or open to others by another name.
    """
    found: list[str] = []
    folder, name = os.path.split(graph)
    for path, check in ((palace, _check_palace), (os.path.realpath(folder), lambda opened: _check(opened, name))):
        try:
            with SharedFolder.open(path) as opened:
                found += check(opened)
        except FileNotFoundError:  # noqa: PERF203 - two folders
            continue
        except OSError as exc:
            raise _refused(exc.filename or path, exc.strerror or str(exc)) from exc
    return found


def server_backend(palace: str) -> str:
    """Return the database server that has the drawers of a palace, by the file in its folder; "" if none has."""
    if os.path.lexists(os.path.join(palace, _MILVUS)):
        return ""  # Milvus Lite keeps them there
    return next((name for name in SERVERS if os.path.isfile(os.path.join(palace, f"{name}_backend.json"))), "")


def names_index(name: str) -> bool:
    """Return whether an entry of a palace's folder has the name of an index of Chroma, a UUID."""
    return len(name) == UUID_CHARS and name.count("-") == _UUID_DASHES


def _check_palace(folder: SharedFolder) -> Iterator[str]:
    for database in _DATABASES:
        yield from _check(folder, database)
    for name in folder.names():
        if names_index(name):
            yield from _check_index(folder, name)


def _check(folder: SharedFolder, name: str) -> Iterator[str]:
    found = folder.look(name) if name == _MILVUS else None
    if found is not None and stat.S_ISDIR(found.st_mode):
        yield from _check_tree(folder, name, _DEEPEST)
        return
    for suffix in _SUFFIXES:
        yield from _check_file(folder, name + suffix)


def _check_index(palace: SharedFolder, name: str) -> Iterator[str]:
    found = palace.look(name)
    if found is None or stat.S_ISREG(found.st_mode):
        return  # gone, or no index
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(os.path.join(palace.path, name), "it is neither a folder nor a file")
    with palace.folder(name) as index:
        for file in index.names():
            yield from _check_file(index, file)


def _check_tree(parent: SharedFolder, name: str, depth: int) -> Iterator[str]:
    with parent.folder(name) as folder:
        for entry in folder.names():
            found = folder.look(entry)
            if found is not None and stat.S_ISDIR(found.st_mode) and depth:
                yield from _check_tree(folder, entry, depth - 1)
            else:
                yield from _check_file(folder, entry)


def _check_file(folder: SharedFolder, name: str) -> Iterator[str]:
    found = folder.look(name)
    if found is None:
        return
    if why := _distrust(folder, found):
        raise _refused(os.path.join(folder.path, name), why)
    if found.st_nlink > 1:
        yield os.path.join(folder.path, name)


def distrusted(path: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files of these names in a folder that can't be trusted, each with the reason; what is missing passes."""
    with contextlib.suppress(OSError), SharedFolder.open(path) as folder:
        for name in names:
            found = folder.look(name)
            if found is not None and (why := _distrust(folder, found)):
                yield os.path.join(path, name), why


def _distrust(folder: SharedFolder, found: os.stat_result) -> str:
    return distrust_file(found, trusted_owners(os.fstat(folder.fd))) or distrust_names(found)


def remedy(path: str) -> str:
    """The hint for a file that can't be trusted."""
    return f"look at it (ls -la {path}), then put the file itself there or remove it"


def _refused(path: str, why: str) -> StateRootError:
    return StateRootError(f"the palace is not opened: {path} can't be trusted, {why}.", hint=remedy(path))
