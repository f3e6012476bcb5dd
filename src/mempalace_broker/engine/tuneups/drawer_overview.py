"""Counts of drawers and sorted lists of them, read once and then kept up to date with our own writes.

Before a write, the rows that it names are taken out of the counts; the next query counts them as they are by then. That
is right as long as nobody else writes. The database numbers each row of each write, so another process's write shows up
as an extra number, whenever it came; then everything is read again.
"""

from __future__ import annotations

import bisect
import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from . import drawer_rows
from .file_cache import database_files, stamps_of

if TYPE_CHECKING:
    from .chroma_writes import Write
    from .drawer_rows import Kind, Position, Row
    from .file_cache import Stamp

_MOST_PENDING = 4096  # rows written since the last query; beyond that, reading everything again is as fast
_MOST_KINDS = 50_000
_MOST_LISTS = 8

Filters = dict[str, Any]  # in mempalace's form: {"wing": "w1"}


class DrawerOverview:
    """Counts and lists of the drawers of one palace.

    Args:
        open_reader: opens the database of a path for reading, as mempalace does.
        ready: takes a connection and the collection's name; returns ids of collection and segment, None while the
            database is behind.
        logical: returns the id under which a row with this metadata is listed, None for its own.
    """

    def __init__(
        self,
        palace: str,
        collection: str,
        open_reader: Callable[[str], Any],
        ready: Callable[[Any, str], tuple[str, str] | None],
        logical: Callable[[dict[str, Any]], Any],
        parent_keys: tuple[str, ...],
    ) -> None:
        self.palace = palace
        self.collection = collection
        self._open_reader, self._ready = open_reader, ready
        self._logical, self._parent_keys = logical, parent_keys
        self._files = database_files(palace)
        self._lock = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        with self._lock:
            self._at: Position | None = None
            self._stamps: list[Stamp] = []
            self._kinds: Counter[Kind] | None = None
            self._lists: dict[tuple[Any, ...], list[str]] = {}
            self._pending: set[str] = set()  # ids of rows that the counts lack
            self._touched: set[str] = set()  # ids whose place in the lists is not yet known

    # -- writes ------------------------------------------------------------------------------------

    def before_write(self, write: Write) -> None:
        """Take out the rows that a write will change. Never raises."""
        with self._lock:
            if self._at is None:
                return
            try:
                if not self._take_out(write):
                    self.forget()
            except Exception as exc:  # noqa: BLE001 - mempalace's own function opens the database; no write fails by it
                print(f"the drawers will be counted again: {exc}", file=sys.stderr, flush=True)
                self.forget()

    def _take_out(self, write: Write) -> bool:
        assert self._at is not None
        if write.ids is None or stamps_of(self._files) != self._stamps:
            return False
        new = set(write.ids) - self._pending
        if write.collection != self._at.collection or not new:
            return True
        if len(self._pending) + len(new) > _MOST_PENDING:
            return False
        with self._reading() as conn:
            if not self._touch(conn, new):
                return False
            if self._kinds is not None:
                self._kinds -= drawer_rows.kinds(conn, self._at.segment, new)
        self._pending |= new
        return True

    def after_write(self, write: Write) -> None:
        """Note that a write of ours is done."""
        with self._lock:
            if self._at is not None:
                self._at = self._at.after(write.collection, write.rows)
                self._stamps = stamps_of(self._files)

    def _touch(self, conn: Any, ids: set[str]) -> bool:
        """Note the entries of the lists that contain these rows; return False if the lists can't represent them."""
        assert self._at is not None
        if self._lists:
            touched = drawer_rows.logical_ids(conn, self._at.segment, ids, self._parent_keys)
            if touched is None:
                return False
            self._touched |= touched
        return True

    # -- queries -----------------------------------------------------------------------------------

    def kinds(self) -> Counter[Kind] | None:
        """Return the number of drawers of each kind; None if only mempalace can tell."""
        with self._lock, self._reading() as conn:
            if not self._caught_up(conn):
                return None
            if self._kinds is None:
                assert self._at is not None
                self._kinds = drawer_rows.kinds(conn, self._at.segment)
            if len(self._kinds) > _MOST_KINDS:
                self.forget()
                return None
            return self._kinds

    def listed(self, conn: Any, filters: Filters) -> list[str] | None:
        """Return the sorted ids of all drawers with these values; None if they are unknown."""
        with self._lock:
            return self._lists.get(_key(filters)) if self._caught_up(conn) else None

    def learn(self, conn: Any, filters: Filters, rows: list[Row]) -> None:
        """Keep the list of `rows`, which are all rows with these values."""
        with self._lock:
            ids = {self._logical(metadata) or name for name, metadata in rows}
            if not self._caught_up(conn) or not all(isinstance(name, str) for name in ids):
                return
            while len(self._lists) >= _MOST_LISTS:
                del self._lists[next(iter(self._lists))]
            self._lists[_key(filters)] = sorted(map(sys.intern, ids))

    def rows_listed_as(self, conn: Any, ids: list[str], filters: Filters) -> list[Row]:
        """Return the rows with these values that are listed under these ids. Call `listed` first, on the connection."""
        assert self._at is not None
        wanted = set(ids)
        return [
            (name, metadata)
            for name, metadata in drawer_rows.rows_listed_as(conn, self._at.segment, ids, self._parent_keys)
            if (self._logical(metadata) or name) in wanted
            and all(metadata.get(key) == value for key, value in filters.items())
        ]

    def _caught_up(self, conn: Any) -> bool:
        """Bring everything up to this connection's state of the database; return whether that state is known."""
        stamps, at = stamps_of(self._files), self._position(conn)
        if at is None or at != self._at or stamps != self._stamps or not self._put_back(conn):
            self.forget()
            self._at, self._stamps = at, stamps
        return at is not None

    def _put_back(self, conn: Any) -> bool:
        assert self._at is not None
        pending, self._pending = self._pending, set()
        if not pending:
            return True
        if not self._touch(conn, pending):
            return False
        if self._kinds is not None:
            self._kinds += drawer_rows.kinds(conn, self._at.segment, pending)
        touched, self._touched = list(self._touched), set()
        for key, names in self._lists.items():
            rows = self.rows_listed_as(conn, touched, dict(key))
            there = {self._logical(metadata) or name for name, metadata in rows}
            for name in touched:
                _place(names, name, there=name in there)
        return True

    def _position(self, conn: Any) -> Position | None:
        return drawer_rows.position(conn, self._ready(conn, self.collection))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        conn = self._open_reader(self._files[0])
        try:
            conn.execute("PRAGMA busy_timeout = 3000")
            conn.execute("BEGIN")
            yield conn
        finally:
            conn.close()


def _key(filters: Filters) -> tuple[Any, ...]:
    return tuple(sorted(filters.items()))


def _place(names: list[str], name: str, *, there: bool) -> None:
    at = bisect.bisect_left(names, name)
    stands = at < len(names) and names[at] == name
    if there and not stands:
        names.insert(at, sys.intern(name))
    elif stands and not there:
        del names[at]
