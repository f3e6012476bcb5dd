"""Checks the palace's database while mempalace is imported.

mempalace 3.11 has SQLite check the database before the first call: 0.35 s at 100,000 drawers, and nothing else happens
meanwhile. SQLite needs neither mempalace nor Python's lock for that, so the same check can run on another core.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import stat
import threading
import time
from typing import Any

from ..system.sqlite_files import uri_of
from .tuneups.file_cache import database_files, settled_before, stamps_of

_CHECKS = b"def sqlite_integrity_status("  # what mempalace's repair.py has if it checks
_SET_OTHERWISE = "MEMPALACE_STARTUP_INTEGRITY_MAX_MB"
_MOST_BYTES = 512 << 20  # mempalace does not check larger ones


class DatabaseCheck:
    """One check of one palace's database; `start` begins it, and only a good verdict counts.

    Whatever is wrong is left to mempalace, which checks again and says it in its words.

    Attributes:
        database: path of the file that is checked.
    """

    def __init__(self, palace: str) -> None:
        self._files = database_files(palace)
        self.database = self._files[0]
        self._sound: list[Any] | None = None  # stamps of the files that were found sound
        self._thread = threading.Thread(target=self._run, name="engine-check", daemon=True)

    def start(self) -> None:
        """Begin, if this mempalace would check this database."""
        with contextlib.suppress(OSError, RuntimeError):
            if self._is_wanted():
                self._thread.start()

    def wait(self) -> None:
        """Return once the check has ended, and has closed the database."""
        if self._thread.ident is not None:
            self._thread.join()

    def is_sound(self, database: str) -> bool:
        """Whether this file was found sound and is unchanged since; waits for the end of the check."""
        self.wait()
        files = [database, database + "-wal"]
        return self._sound is not None and stamps_of(files) == self._sound

    def _is_wanted(self) -> bool:
        info = os.lstat(self._files[0])
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MOST_BYTES or os.environ.get(_SET_OTHERWISE):
            return False
        found = importlib.util.find_spec("mempalace")
        if found is None or not found.submodule_search_locations:
            return False
        with open(os.path.join(found.submodule_search_locations[0], "repair.py"), "rb") as file:
            return _CHECKS in file.read()

    def _run(self) -> None:
        sqlite3: Any = importlib.import_module("sqlite3")
        begun, stamps = time.time_ns(), stamps_of(self._files)
        try:
            with contextlib.closing(sqlite3.connect(uri_of(self.database, "mode=ro"), uri=True)) as database:
                rows = database.execute("PRAGMA quick_check").fetchall()
        except (sqlite3.Error, ValueError):
            return
        if rows == [("ok",)] and settled_before(stamps, begun) and stamps_of(self._files) == stamps:
            self._sound = stamps
