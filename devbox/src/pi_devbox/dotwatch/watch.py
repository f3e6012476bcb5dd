"""One round over all watched files: look at each, and do what its WatchedFile says.

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
from .watched import Action, Stamp, WatchedFile

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
        self._files: dict[str, WatchedFile] = {}
        self._spelled: dict[str, str] = {}  # entry -> its first spelling
        self._folder_error = ""

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
            self._look_at(path, self._files.setdefault(path, WatchedFile()))

    def _paths(self) -> list[str]:
        """The files to look at: the present ones, and those seen before."""
        try:
            found = self.sources()
            self._folder_error = ""
        except OSError as exc:
            found = []
            error = f"can't read {exc.filename}: {exc.strerror}"
            if error != self._folder_error:
                self._folder_error = error
                self._say(error)
        called = [self._spelled.setdefault(render.entry_of(path), path) for path in found]
        return list(dict.fromkeys([*called, *self._files]))

    def _look_at(self, path: str, file: WatchedFile) -> None:
        text = b""
        try:
            info = os.stat(path)
            stamp = Stamp(info.st_mtime_ns, info.st_size, info.st_ino)
            picture = os.path.exists(self._drawing.picture_of(path))
            if file.to_read(stamp, self._clock()):
                text = _read(path)
                action = file.seen(hashlib.sha256(text).digest(), picture=picture)
            else:
                action = file.unchanged(picture=picture)
        except (FileNotFoundError, NotADirectoryError):
            action = file.missing()
        except OSError as exc:  # unreadable for now: reported once, like any error
            action = self._unreadable(file, f"can't read {path}: {exc.strerror}")
        self._do(action, path, file, text)

    def _unreadable(self, file: WatchedFile, error: str) -> Action:
        action = file.seen(error.encode(), picture=True)
        if action is Action.DRAW:
            file.drawn(error)
            return Action.NOTHING
        return action

    def _do(self, action: Action, path: str, file: WatchedFile, text: bytes) -> None:
        if action is Action.GONE:
            self._say(f"{path} is gone; waiting for it")
            if not self._named(path):
                del self._files[path]
        elif action is Action.REPORT:
            self._say(f"{path}:\n{file.error}")
            file.reported()
        elif action is Action.DRAW:
            file.drawn(self._draw(path, text or _read_if_there(path)))

    def _named(self, path: str) -> bool:
        return render.entry_of(path) in map(render.entry_of, self._targets)

    def _draw_now(self, path: str) -> bool:
        try:
            error = self._draw(path, _read(path))
        except OSError as exc:
            error = exc.strerror or str(exc)
        if error:
            self._say(f"{path}:\n{error}")
        return not error

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
