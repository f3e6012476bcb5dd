"""Lets no kill tear the marker: the file in the palace that names the database of its drawers.

mempalace writes it anew with every drawer, in place: an engine that is killed just then leaves half of it, and no
mempalace opens the palace any more ("marker is unreadable"). Here it is written once, beside its place, and moved
there. A torn one counts as missing, and is written again with the next drawer.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ..system.palace_stores import SERVERS
from .tuneups.tuneup import parameters

if TYPE_CHECKING:
    from .adapter import Mempalace

_MOST = 1 << 16  # bytes of one
_NEW = ".new"
_METHODS = {
    "_write_marker": ["self", "palace", "config"],
    "_read_marker": ["self", "palace"],
    "_marker_target": ["self", "palace", "config"],
    "_marker_path": ["palace_path"],
}


def guard_markers(mempalace: Mempalace, *names: str | None) -> None:
    """Guard the markers of those of these backends that have one. A backend that writes it otherwise stays as it is."""
    for name in names:
        get: Any = getattr(mempalace.module("backends"), "get_backend", None) if name in SERVERS else None
        if get is not None:
            _guard(type(get(name)))


def _guard(backend: Any) -> None:
    if any(parameters(getattr(backend, name, None)) != known for name, known in _METHODS.items()):
        return
    stock_write, stock_read = backend._write_marker, backend._read_marker

    def read(self: Any, palace: Any) -> Any:
        try:
            return stock_read(self, palace)
        except Exception:
            path = self._marker_path(palace.local_path)
            if not _is_torn(path):
                raise
            print(f"{path} was torn by a kill; it is written again with the next drawer", file=sys.stderr, flush=True)
            return None

    def write(self: Any, palace: Any, config: Any) -> None:
        if not palace.local_path or self._marker_target(palace, config) == (read(self, palace) or {}).get(self.name):
            return
        place = self._marker_path(palace.local_path)
        self._marker_path = lambda _: place + _NEW  # of this one object, and for this one call
        try:
            stock_write(self, palace, config)
        finally:
            del self._marker_path
        _move(place + _NEW, place)

    backend._write_marker, backend._read_marker = write, read


def _is_torn(path: str) -> bool:
    """Whether a file holds the beginning of an object and not its end."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            data = file.read(_MOST)
        try:
            json.loads(data)
        except ValueError:
            return len(data) < _MOST and (not data or data.startswith(b"{"))
    return False


def _move(new: str, place: str) -> None:
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    os.replace(new, place)
