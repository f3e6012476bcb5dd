"""The journal of writes on disk; protocol/journal.py has the format of its entries."""

from __future__ import annotations

import os
import sys
import threading

from ..errors import file_hint
from ..protocol import journal
from ..system.shared_files import SharedFolder, read_at_most

_OLDER = ".1"
_LARGEST = 2 * journal.ROTATE_BYTES  # ours are rotated long before


class JournalFile:
    """An append-only file and its one predecessor.

    Each entry is one write(2): it survives the death of the process, not of the machine. A write whose start can't be
    noted must not run: the next broker would conclude that it never began, and run it a second time.

    Args:
        path: its file; the predecessor is `path` + ".1". None: no journal.

    Attributes:
        error: why nothing can be written to it; "" if something can. hint: what helps then.
    """

    def __init__(self, path: str | None, *, rotate_bytes: int = journal.ROTATE_BYTES) -> None:
        self.path = path
        self.error = self.hint = self._told = ""
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        self._fd = -1
        self._size = 0
        if path is not None:
            try:
                self._open(path)
            except OSError as exc:
                self._give_up(exc)

    @property
    def trouble(self) -> list[dict[str, str]]:
        """`error` as entries for `status`."""
        return [{"what": f"nothing can be stored: {self.error}", "hint": self.hint}] if self.error else []

    def changed(self) -> bool:
        """Return whether `error` has changed since the last call."""
        before, self._told = self._told, self.error
        return self._told != before

    def started(self, key: str) -> bool:
        """Note that the write `key` is about to run; return False if that fails, `error` says why."""
        if self.path is None:
            return True
        with self._lock:
            if self._fd >= 0 and not os.fstat(self._fd).st_nlink:  # removed meanwhile: nobody would find the entry
                self._close()
            if self._fd < 0:
                try:
                    self._open(self.path)
                except OSError as exc:
                    self._give_up(exc)
        return self._append(journal.started(key))

    def ended(self, key: str, response: bytes) -> None:
        """Note that the write `key` ran, with its response. If noting fails, its outcome counts as unknown."""
        self._append(journal.ended(key, response))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, path: str) -> None:
        folder, name = os.path.split(path)
        with SharedFolder.open(folder) as root:
            fd = root.open_in_place(name, create=True, append=True)
            if os.fstat(fd).st_size > _LARGEST:
                os.close(fd)
                root.rename(name, name + _OLDER)
                fd = root.open_in_place(name, create=True, append=True)
        self._fd = fd
        data = read_at_most(fd, _LARGEST)
        self._size = journal.whole_length(data)
        if self._size != len(data):
            os.ftruncate(fd, self._size)

    def _append(self, entry: bytes) -> bool:
        with self._lock:
            if self._fd < 0:
                return False
            try:
                if self._size + len(entry) > self._rotate_bytes and self._size:
                    self._rotate()
                written = os.write(self._fd, entry)
                if written != len(entry):
                    os.ftruncate(self._fd, self._size)
                    raise OSError(f"only {written} of {len(entry)} bytes could be written")
                self._size += written
            except OSError as exc:
                self._give_up(exc)
                return False
            self.error = ""
            return True

    def _rotate(self) -> None:
        assert self.path is not None
        self._close()
        folder, name = os.path.split(self.path)
        with SharedFolder.open(folder) as root:
            root.rename(name, name + _OLDER)
        self._open(self.path)

    def _give_up(self, exc: OSError) -> None:
        self._close()
        self.hint = file_hint(exc, otherwise="free space there, or allow writing")
        reported, self.error = self.error, f"the journal of writes {self.path} can't be written ({exc})"
        if reported != self.error:
            print(self.error, file=sys.stderr, flush=True)
