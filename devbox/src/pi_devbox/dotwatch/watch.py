"""Watch files: look at each, do what its WatchedFile says, and draw beside that.

Files are polled because inotify does not fire on shares of another kernel (virtiofs). No library does the polling:
that of watchfiles has time stamps of whole seconds and misses the second of two quick saves, that of watchdog compares
time stamp and size only, and neither recognises a half-written save. Either would replace a single call of `stat`.

Engines run in threads of a pool, a few at a time, so that a large graph delays no other one. Everything else happens in
the caller's thread. A save ends the drawing of the content before it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from . import render
from .watched import Action, Stamp, WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PARALLEL = max(4, os.cpu_count() or 1)
SLOW_S = 2.0  # a drawing that takes longer is mentioned, and again whenever its time has doubled


class _Job(NamedTuple):
    """A drawing under way, or waiting for its turn."""

    run: render.Run
    future: Future[tuple[list[bytes], str]]


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
        self._pool = ThreadPoolExecutor(PARALLEL, "dot-watch")
        self._jobs: dict[str, _Job] = {}  # by file
        self._done: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._owners: dict[str, str] = {}  # picture -> the file that it is of
        self._mentioned: dict[str, float] = {}  # file -> how long it had been drawn when that was last said
        self._spelled: dict[str, str] = {}  # entry -> its first spelling
        self._folder_error = ""

    def sources(self) -> list[str]:
        """List the present files. Raise OSError if a folder can't be read."""
        return render.sources(self._targets, self._folders)

    def close(self) -> None:
        """End all drawings."""
        for path in list(self._jobs):
            self._end(path)
        self._pool.shutdown()

    def once(self) -> bool:
        """Draw everything now; return whether all succeeded."""
        errors = [self._draw_now(path) for path in self.sources()]
        while self._jobs:
            errors += [self._tell_error(path, error) for path, error in self._finished(SLOW_S)]
            self._mention()
        return not any(errors)

    def look(self) -> None:
        """Look at everything once, and have drawn what has changed."""
        for path in self._paths():
            self._look_at(path, self._files.setdefault(path, WatchedFile()))

    def wait(self, seconds: float) -> None:
        """Let drawings go on for a while; report each as soon as it has ended."""
        end = self._clock() + seconds
        while (now := self._clock()) < end:
            due = min([end, *(file.due for file in self._files.values() if file.error)])
            for path, error in self._finished(min(max(due - now, 0.0), SLOW_S)):
                self._files[path].drawn(error)
            self._mention()
            for path, file in list(self._files.items()):
                if file.error and file.due <= self._clock():
                    self._look_at(path, file)

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
                action = file.seen(hashlib.sha256(text).digest(), self._clock(), picture=picture)
            else:
                action = file.unchanged(self._clock(), picture=picture)
        except (FileNotFoundError, NotADirectoryError):
            action = file.missing(self._clock())
        except OSError as exc:  # unreadable for now: reported once, like any error
            action = self._unreadable(path, file, f"can't read {path}: {exc.strerror}")
        self._do(action, path, file, text)

    def _unreadable(self, path: str, file: WatchedFile, error: str) -> Action:
        action = file.seen(error.encode(), self._clock(), picture=True)
        if action is Action.DRAW:
            self._end(path)
            file.drawn(error)
            return Action.NOTHING
        return action

    def _do(self, action: Action, path: str, file: WatchedFile, text: bytes) -> None:
        if action is Action.GONE:
            self._end(path)
            self._owners = {picture: owner for picture, owner in self._owners.items() if owner != path}
            self._say(f"{path} is gone; waiting for it")
            if not self._named(path):
                del self._files[path]
        elif action is Action.REPORT:
            self._say(f"{path}:\n{file.error}")
            file.reported()
        elif action is Action.DRAW and (error := self._draw(path, text or _read_if_there(path))):
            file.drawn(error)

    def _named(self, path: str) -> bool:
        return render.entry_of(path) in map(render.entry_of, self._targets)

    def _draw_now(self, path: str) -> str:
        """Begin to draw a file. Report and return the error that prevents it, if any."""
        try:
            return self._tell_error(path, self._draw(path, _read(path)))
        except OSError as exc:
            return self._tell_error(path, exc.strerror or str(exc))

    def _tell_error(self, path: str, error: str) -> str:
        if error:
            self._say(f"{path}:\n{error}")
        return error

    def _draw(self, path: str, text: bytes) -> str:
        """Begin to draw a file, in place of its drawing under way; return why that can't be, or empty."""
        self._end(path)
        if error := self._claim(path, self._drawing.picture_of(path)):
            return error
        run = render.Run(self._drawing, path, text)
        job = self._jobs[path] = _Job(run, self._pool.submit(run.pictures))
        job.future.add_done_callback(lambda _: self._done.put(job))
        return ""

    def _end(self, path: str) -> None:
        """End the drawing of a file, if there is one."""
        self._mentioned.pop(path, None)
        if (job := self._jobs.pop(path, None)) is not None:
            job.future.cancel()
            job.run.end()

    def _claim(self, path: str, picture: str) -> str:
        """Keep two files from sharing a picture; return what is wrong, or empty."""
        owner = self._owners.setdefault(render.entry_of(picture), path)
        return "" if owner == path else f"{picture} is the picture of {owner}: rename one of them"

    def _finished(self, limit: float) -> list[tuple[str, str]]:
        """Wait for drawings to end, at most `limit` seconds; return the file and the error, or empty, of each."""
        ended: list[tuple[str, str]] = []
        try:
            job = self._done.get(timeout=limit)
            while True:
                path = job.run.name
                if self._jobs.get(path) is job:  # otherwise it was ended, in favour of newer content
                    self._end(path)
                    ended.append((path, self._publish(path, job.future)))
                job = self._done.get_nowait()
        except queue.Empty:
            return ended

    def _publish(self, path: str, future: Future[tuple[list[bytes], str]]) -> str:
        """Put the pictures of a drawing into place and report that; return the error, or empty."""
        try:
            pictures, warnings = future.result()
            targets = [self._drawing.picture_of(path, number) for number in range(1, len(pictures) + 1)]
            for target, picture in zip(targets, pictures, strict=True):
                if error := self._claim(path, target):
                    return error
                render.publish(target, picture)
        except render.Failed as exc:
            return str(exc)
        except OSError as exc:
            return f"can't write {exc.filename}: {exc.strerror}"
        self._say(f"{path} -> {', '.join(targets)}" + (f"\n{warnings}" if warnings else ""))
        return ""

    def _mention(self) -> None:
        """Say what takes long."""
        waiting = sum(job.run.started is None for job in self._jobs.values())
        for path, job in self._jobs.items():
            took = 0.0 if job.run.started is None else self._clock() - job.run.started
            if took >= max(SLOW_S, 2 * self._mentioned.get(path, 0.0)):
                self._mentioned[path] = took
                self._say(f"{path}: drawing for {took:.0f} s" + (f"; {waiting} more wait" if waiting else ""))


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
