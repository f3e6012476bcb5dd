"""One round over all watched files: look at each, and do what its Subject says.

Files are polled because inotify does not fire on shares of another kernel (virtiofs). No library does the polling:
that of watchfiles has time stamps of whole seconds and misses the second of two quick saves, that of watchdog compares
time stamp and size only, and neither recognises a half-written save. Either would replace a single call of `stat`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from . import render
from .subject import Stamp, Step, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Watcher:
    """Watches files and folders, and keeps their pictures up to date."""

    def __init__(
        self, targets: Sequence[str], drawing: render.Drawing, clock: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        """Watch `targets`: what is a folder now counts as one for ever. `clock` is monotonic, `say` prints."""
        self._targets = targets
        self._folders = {target for target in targets if os.path.isdir(target)}
        self._drawing = drawing
        self._clock = clock
        self._say = say
        self._subjects: dict[str, Subject] = {}
        self._spelled: dict[str, str] = {}  # entry -> its first spelling
        self._folder_trouble = ""

    def sources(self) -> list[str]:
        """List the present files. Raise OSError if a folder can't be read."""
        return render.sources(self._targets, self._folders)

    def once(self) -> bool:
        """Draw everything now; return whether all succeeded."""
        went_well = [self._draw_now(path) for path in self.sources()]
        return all(went_well)

    def look(self) -> None:
        """Look at everything once, and draw what has changed."""
        for path in self._paths():
            self._look_at(path, self._subjects.setdefault(path, Subject()))

    def _paths(self) -> list[str]:
        """The files to look at: the present ones, and those seen before."""
        try:
            found = self.sources()
            self._folder_trouble = ""
        except OSError as exc:
            found = []
            trouble = f"can't read {exc.filename}: {exc.strerror}"
            if trouble != self._folder_trouble:
                self._folder_trouble = trouble
                self._say(trouble)
        called = [self._spelled.setdefault(render.entry_of(path), path) for path in found]
        return list(dict.fromkeys([*called, *self._subjects]))

    def _look_at(self, path: str, subject: Subject) -> None:
        text = b""
        try:
            info = os.stat(path)
            stamp = Stamp(info.st_mtime_ns, info.st_size, info.st_ino)
            picture = os.path.exists(self._drawing.picture_of(path))
            if subject.to_read(stamp, self._clock()):
                text = _read(path)
                step = subject.seen(hashlib.sha256(text).digest(), picture=picture)
            else:
                step = subject.unchanged(picture=picture)
        except (FileNotFoundError, NotADirectoryError):
            step = subject.missing()
        except OSError as exc:  # unreadable for now: reported once, like any error
            step = self._unreadable(subject, f"can't read {path}: {exc.strerror}")
        self._do(step, path, subject, text)

    def _unreadable(self, subject: Subject, trouble: str) -> Step:
        step = subject.seen(trouble.encode(), picture=True)
        if step is Step.DRAW:
            subject.drawn(trouble)
            return Step.NOTHING
        return step

    def _do(self, step: Step, path: str, subject: Subject, text: bytes) -> None:
        if step is Step.GONE:
            self._say(f"{path} is gone; waiting for it")
            if not self._named(path):
                del self._subjects[path]
        elif step is Step.TELL:
            self._say(f"{path}:\n{subject.trouble}")
            subject.told()
        elif step is Step.DRAW:
            subject.drawn(self._draw(path, text or _read_if_there(path)))

    def _named(self, path: str) -> bool:
        return render.entry_of(path) in map(render.entry_of, self._targets)

    def _draw_now(self, path: str) -> bool:
        try:
            trouble = self._draw(path, _read(path))
        except OSError as exc:
            trouble = exc.strerror or str(exc)
        if trouble:
            self._say(f"{path}:\n{trouble}")
        return not trouble

    def _draw(self, path: str, text: bytes) -> str:
        """Draw a file and report that; return the error, or empty."""
        target = self._drawing.picture_of(path)
        try:
            picture, warnings = render.render(self._drawing, path, text)
            render.publish(target, picture)
        except render.Failed as exc:
            return str(exc)
        self._say(f"{path} -> {target}" + (f"\n{warnings}" if warnings else ""))
        return ""


def _read(path: str) -> bytes:
    """Read a regular file, or the target of a link. Raise OSError for anything else: a FIFO could block for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO would wait for its writer
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def _read_if_there(path: str) -> bytes:
    """Read a file; return nothing if it has just vanished, which the next look will notice."""
    try:
        return _read(path)
    except OSError:
        return b""
