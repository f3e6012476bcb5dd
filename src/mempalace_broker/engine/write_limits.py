"""Keeps the engine's writes, those of Chroma and SQLite included, in the folders that mempalace works with.

Whoever can write the palace can swap a database for a link to any file of the user's while the engine runs. Python's
own opens are guarded (shared_opens); Chroma and SQLite open files in C, so the kernel has to hold them: Landlock, where
Linux has it. Reading is not restricted, because the user may mine any folder.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import landlock
from .minilm import FOLDER
from .shared_opens import under

if TYPE_CHECKING:
    from .adapter import Mempalace

_SYSTEM = ("/dev/null", "/dev/shm", "/proc/self")
_SORTING = ("/var/tmp", "/usr/tmp")  # Python's SQLite sorts what is large in one; it chose when it was imported
_GRAPHICS = ("/dev/dri", "/dev/kfd", "/dev/nvidia*")  # some embed on a graphics card
_DATABASE_VARIABLE = "MEMPALACE_MILVUS_URI"  # of Milvus Lite a file; from the user's settings, unlike config.json
_MODEL_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME", "TORCH_HOME")


def limit_writes(mempalace: Mempalace, journal: str | None) -> str:
    """Let this thread and those that it starts write only what mempalace keeps; "" if that holds, else why it doesn't.

    Call it when mempalace is imported, so that Python could write its byte code, and before a database is opened.
    """
    if not landlock.LINUX:
        return f"{sys.platform} has no Landlock"
    if (found := landlock.version()) < landlock.OLDEST:
        return f"this kernel's Landlock has version {found}; version {landlock.OLDEST} (Linux 5.19) is needed"
    home, places = os.path.expanduser("~"), list(_places(mempalace, journal))
    try:
        landlock.restrict_writes(places)
    except OSError as exc:
        return f"Landlock refused: {exc.strerror or exc}"
    if any(under(os.path.realpath(home), os.path.realpath(place)) for place in places):
        return f"mempalace keeps files in {home} itself, beside {mempalace.palace_path()}, so all of that is allowed"
    return ""


def _places(mempalace: Mempalace, journal: str | None) -> Iterator[str]:
    home, palace = os.path.expanduser("~"), mempalace.palace_path()
    temporary = list(filter(None, [os.environ.get("SQLITE_TMPDIR")]))
    with contextlib.suppress(FileNotFoundError):  # a system that can only be read has none
        temporary.append(tempfile.gettempdir())
    yield from _SYSTEM
    for pattern in _GRAPHICS:
        yield from glob.iglob(pattern)
    if temporary:
        os.environ["SQLITE_TMPDIR"] = temporary[0]  # for Chroma's SQLite, which is not loaded yet
    yield from temporary
    yield from _SORTING
    yield palace
    yield os.path.dirname(os.path.abspath(palace))  # mempalace keeps its tunnels there, and a palace comes and goes
    yield os.path.join(home, ".mempalace")
    for file in (journal, mempalace.graph_path(), mempalace.config_path()):
        if file:
            yield os.path.dirname(os.path.abspath(file))
    database = os.environ.get(_DATABASE_VARIABLE, "")
    if database and "://" not in database:
        yield os.path.dirname(os.path.abspath(os.path.expanduser(database)))
    yield from _models(home)


def _models(home: str) -> Iterator[str]:
    """Where models are downloaded to; made now, because a folder that is not there can't be allowed."""
    chroma = os.path.join(home, ".cache", "chroma")
    hub = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "huggingface")
    for folder in (chroma, hub):
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        yield folder
    yield os.path.join(chroma, FOLDER)  # may be a link to another disk
    yield from filter(None, map(os.environ.get, _MODEL_VARIABLES))
