"""From DOT to a picture on disk: one run of a layout engine, and a rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DevboxError
from ..outcome import clean

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

LAYOUTS = ("dot", "neato", "fdp", "circo", "twopi")
MOST_LINES = 20  # of an engine's messages


class Failed(Exception):
    """No new picture was made; the text says why, in one or more lines."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How pictures are made.

    Attributes:
        layout: the engine, one of LAYOUTS. dpi: resolution. form: as in -Tpng. limit_s: for one picture.
    """

    layout: str
    dpi: int
    form: str
    limit_s: float

    @property
    def command(self) -> list[str]:
        """The command line that reads DOT on stdin and writes the picture to stdout."""
        return [self.layout, f"-T{self.form}", f"-Gdpi={self.dpi}"]

    def picture_of(self, source: str) -> str:
        """Path of the picture, beside its source: a.dot -> a.png, a.gv -> a.gv.png."""
        return f"{source.removesuffix('.dot')}.{self.form}"


def check_engine(layout: str) -> None:
    """Raise DevboxError if the engine is not installed."""
    if shutil.which(layout) is None:
        raise DevboxError(f"there is no layout engine {layout} on the PATH.", hint="apt-get install -y graphviz")


def render(drawing: Drawing, name: str, text: bytes) -> tuple[bytes, str]:
    """Return the picture of `text` and the engine's warnings. Doesn't read the file itself, which may change meanwhile.

    Raises:
        Failed: the engine refused, took too long, or drew nothing.
    """
    if not text.strip():
        raise Failed(f"{os.path.basename(name)} is empty")
    try:
        done = subprocess.run(drawing.command, input=text, capture_output=True, timeout=drawing.limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{drawing.layout} took longer than {drawing.limit_s:g} s and was ended") from None
    except OSError as exc:
        raise Failed(f"{drawing.layout} can't be run: {exc.strerror or exc}") from exc
    said = readable(done.stderr, name)
    if done.returncode:
        raise Failed(said or f"{drawing.layout} failed with exit status {done.returncode}")
    if not done.stdout:
        raise Failed(said or f"{drawing.layout} found no graph in it")
    return done.stdout, said


def readable(stderr: bytes, name: str) -> str:
    """The messages of an engine for a terminal, with the file's name in place of "<stdin>"."""
    text = stderr.decode(errors="replace").replace("<stdin>", os.path.basename(name))
    lines = [clean(line) for line in text.splitlines() if line.strip()]
    more = [f"... {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *more])


def publish(path: str, content: bytes) -> None:
    """Replace a picture atomically: a reader sees the whole old one or the whole new one.

    Raises:
        Failed: it can't be written there.
    """
    target = os.path.realpath(path)  # a link stays one
    folder, base = os.path.split(target)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{base}.", suffix=".tmp", dir=folder)
    except OSError as exc:
        raise Failed(f"can't write to {folder}: {exc.strerror}") from exc
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), _mode(target))
        os.replace(temporary, target)
    except OSError as exc:
        raise Failed(f"can't write {path}: {exc.strerror}") from exc
    finally:
        with contextlib.suppress(FileNotFoundError):  # renamed, as it should be
            os.unlink(temporary)


def _mode(target: str) -> int:
    """The permissions that a plain write would leave: the present ones, or those of a new file."""
    try:
        return os.stat(target).st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def sources(targets: Sequence[str], folders: Container[str]) -> list[str]:
    """List the files to watch now: the sorted .dot and .gv files of a target in `folders`, any other target itself.

    No file is listed twice, however it is spelled.

    Raises:
        OSError: a folder can't be read.
    """
    found: list[str] = []
    for target in targets:
        if target not in folders:
            found.append(target)
            continue
        with os.scandir(target) as entries:
            found.extend(sorted(entry.path for entry in entries if _is_source(entry)))
    unique: dict[str, str] = {}
    for path in found:
        unique.setdefault(entry_of(path), path)
    return list(unique.values())


def entry_of(path: str) -> str:
    """The canonical path of a directory entry. A link is an entry of its own: it has its own picture."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _is_source(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith((".dot", ".gv")) and not entry.name.startswith(".") and not entry.is_dir()
