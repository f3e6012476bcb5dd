"""From DOT to pictures on disk: one run of a layout engine, and renames."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DevboxError
from ..outcome import clean

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

LAYOUTS = ("dot", "neato", "fdp", "circo", "twopi")
MOST_LINES = 20  # of an engine's messages


class Failed(Exception):
    """No new picture was made; the text says why, in one or more lines."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How pictures are made.

    Attributes:
        layout: the engine, one of LAYOUTS. dpi: resolution. form: as in -Tpng. limit_s: for one file; None: no limit.
    """

    layout: str
    dpi: float
    form: str
    limit_s: float | None = None

    def picture_of(self, source: str, number: int = 1) -> str:
        """Path of the picture of a graph, beside its source.

        a.dot -> a.png, and for the second graph in it a.dot.2.png; a.gv -> a.gv.png, so a.gv.dot -> a.gv.dot.png.
        """
        if number > 1:
            return f"{source}.{number}.{self.form}"
        plain = source.removesuffix(".dot")
        return f"{source if plain.endswith('.gv') else plain}.{self.form}"


def check_engine(layout: str) -> None:
    """Raise DevboxError if the engine is not installed."""
    if shutil.which(layout) is None:
        raise DevboxError(f"there is no layout engine {layout} on the PATH.", hint="apt-get install -y graphviz")


class Run:
    """One run of an engine, which another thread can end.

    Attributes:
        name: of the file. started: by time.monotonic(); None before that.
    """

    def __init__(self, drawing: Drawing, name: str, text: bytes) -> None:
        """Draw `text`, the content of the file `name`, which may change meanwhile."""
        self.name = name
        self.started: float | None = None
        self._drawing = drawing
        self._text = text
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._lock = threading.Lock()  # guards the two above

    def pictures(self) -> tuple[list[bytes], str]:
        """Run it; return a picture of each graph, and the engine's warnings.

        Raises:
            Failed: the engine refused, took too long, was ended, or drew nothing.
        """
        if not self._text.strip():
            raise Failed(f"{os.path.basename(self.name)} is empty")
        self.started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="dot-watch-") as folder:
            path = os.path.join(folder, "graph")
            with open(path, "wb") as file:
                file.write(self._text)
            status, stderr = self._run(path)
            said = readable(stderr, path, self.name)
            if status:
                raise Failed(said or f"{self._drawing.layout} failed with exit status {status}")
            found = list(_written(path, self._drawing.form))
        if not found:
            raise Failed(said or f"{self._drawing.layout} found no graph in it")
        return found, said

    def end(self) -> None:
        """End it, now or before it starts."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def _run(self, path: str) -> tuple[int, bytes]:
        """Run the engine, which writes beside `path` (-O). Return its exit status and stderr."""
        drawing = self._drawing
        argv = [drawing.layout, f"-T{drawing.form}", f"-Gdpi={drawing.dpi:g}", "-O", path]
        try:
            with self._lock:
                if self._ended:
                    raise Failed("ended before it began")
                self._process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
        except OSError as exc:
            raise Failed(f"{drawing.layout} can't be run: {exc.strerror or exc}") from exc
        with self._process as process:
            try:
                _, stderr = process.communicate(timeout=drawing.limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise Failed(
                    f"{drawing.layout} took longer than {drawing.limit_s:g} s (--limit), and was ended"
                ) from None
        return process.returncode, stderr


def _written(path: str, form: str) -> Iterator[bytes]:
    """The pictures that an engine has written beside `path`, which it numbers from the second on."""
    for number in itertools.count(1):
        try:
            with open(f"{path}.{number}.{form}" if number > 1 else f"{path}.{form}", "rb") as file:
                yield file.read()
        except FileNotFoundError:
            return


def readable(stderr: bytes, path: str, name: str) -> str:
    """The messages of an engine for a terminal, with the file's name in place of the `path` that it read."""
    text = stderr.decode(errors="replace").replace(path, os.path.basename(name))
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
