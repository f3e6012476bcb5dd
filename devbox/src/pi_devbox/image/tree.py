"""Read the inputs of an image. IO only; `fingerprint` decides which names count."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import ConfigError
from .fingerprint import Entry, ignored


def read_inputs(root: Path, paths: Iterable[str]) -> list[Entry]:
    """Read every file and link in and under `paths` (relative to `root`).

    A path that is missing, or can't be copied into an image, is a ConfigError: if it were left out silently, changes to
    it would go unnoticed.
    """
    entries = [entry for path in paths for entry in _walk(os.fsencode(root), os.fsencode(path.rstrip("/")))]
    return sorted(set(entries))


def _walk(root: bytes, path: bytes) -> Iterator[Entry]:
    full = os.path.join(root, path)
    try:
        mode = os.lstat(full).st_mode
        if stat.S_ISDIR(mode):
            for name in os.listdir(full):
                if not ignored(name):
                    yield from _walk(root, path + b"/" + name)
        else:
            yield _entry(full, path, mode)
    except OSError as exc:
        raise ConfigError(
            f"{os.fsdecode(full)} is an input of the image and can't be read: {exc.strerror}.",
            hint="run it in a complete checkout (--root), or correct `inputs` in devbox/image/companions.toml",
        ) from exc


def _entry(full: bytes, path: bytes, mode: int) -> Entry:
    if stat.S_ISLNK(mode):
        return Entry(path, "link", os.readlink(full))
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{os.fsdecode(full)} is not a file, folder or link.", hint="remove it from the inputs")
    with open(full, "rb") as file:
        return Entry(path, "executable" if mode & stat.S_IXUSR else "file", file.read())
