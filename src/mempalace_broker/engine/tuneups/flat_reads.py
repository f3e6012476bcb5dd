"""Tune-ups for calls that read all drawers: `status` and others count them, `list_drawers` sorts them.

For mempalace 3.11 and newer. Each compares its first answer with mempalace's own, and is dropped if they differ.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import sys
from collections import Counter, UserList, defaultdict
from typing import TYPE_CHECKING, Any, Callable

from .chroma_writes import watch_writes
from .drawer_overview import DrawerOverview
from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace
    from .drawer_rows import Kind, Row

_OVERVIEW = "drawer_overview"  # attribute of Mempalace: both tune-ups share it


def _overview(mempalace: Mempalace) -> DrawerOverview:
    known: DrawerOverview | None = vars(mempalace).get(_OVERVIEW)
    if known is not None:
        return known
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    opened: Any = getattr(chroma, "open_palace_reader", None)
    ready: Any = getattr(chroma, "_sqlite_ready_metadata_segment", None)
    logical: Any = getattr(server, "_logical_parent_id", None)
    keys: Any = getattr(server, "_PARENT_ID_KEYS", None)
    require(parameters(opened)[:1] == ["db_path"], "this mempalace opens the database in another way")
    require(
        parameters(ready) == ["conn", "collection_name"], "this mempalace does not say how far its database has got"
    )
    require(parameters(logical) == ["meta"] and isinstance(keys, tuple), "this mempalace joins drawers in another way")
    palace, collection = mempalace.palace_path(), str(server._config.collection_name)
    overview = DrawerOverview(palace, collection, opened, ready, logical, keys)
    watch_writes(overview.after_write, overview.before_write)
    mempalace.before_close.append(overview.forget)
    setattr(mempalace, _OVERVIEW, overview)
    return overview


# -- counts --------------------------------------------------------------------------------------------


def _by_wing(kinds: Counter[Kind]) -> tuple[int, dict[str, dict[str, int]]]:
    """Like `_sqlite_wing_room_counts`: (total, {wing: {room: count}}), in order of the names."""
    counts: Counter[tuple[str, str]] = Counter()
    for (wing, room, _hall, _date), count in kinds.items():
        counts["?" if wing is None else wing, "?" if room is None else room] += count
    wings: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (wing, room), count in sorted(counts.items()):
        wings[wing][room] = count
    return sum(counts.values()), wings


def _by_room(kinds: Counter[Kind]) -> list[tuple[str, str, str, int, str]]:
    """Like `sqlite_room_wing_hall_counts`: (room, wing, hall, count, newest date), in order of the names."""
    found: dict[tuple[str, str, str], tuple[int, str]] = {}
    for (wing, room, hall, date), count in kinds.items():
        key = room or "", wing or "", hall or ""
        before, newest = found.get(key, (0, ""))
        found[key] = before + count, max(newest, date or "")
    return [(*key, count, newest) for key, (count, newest) in sorted(found.items())]


def _from_counts(overview: DrawerOverview, stock: Any, derive: Callable[[Counter[Kind]], Any]) -> Any:
    """Stand in for `stock`: derive its answer from the counts."""
    proved: bool | None = None  # None: not tried yet

    @functools.wraps(stock)
    def counts(palace_path: str, collection_name: str) -> Any:
        nonlocal proved
        if proved is False or (palace_path, collection_name) != (overview.palace, overview.collection):
            return stock(palace_path, collection_name)
        try:
            kinds = overview.kinds()
        except Exception as exc:  # noqa: BLE001 - a database that can't be read is mempalace's to report
            print(f"the drawers could not be counted: {exc}", file=sys.stderr, flush=True)
            kinds = None
        if kinds is None:
            return stock(palace_path, collection_name)
        answer = derive(kinds)
        if proved is None:
            usual = stock(palace_path, collection_name)
            proved = json.dumps(usual) == json.dumps(answer)  # the order counts as well
            if not proved:
                _differs(stock.__name__)
            elif not kinds:
                proved = None  # an empty answer proves nothing
            return usual
        return answer

    return counts


def _differs(what: str) -> None:
    print(f"kept counts were dropped: mempalace's own {what} answers differently", file=sys.stderr, flush=True)


def _apply_counts(mempalace: Mempalace) -> None:
    chroma = mempalace.module("backends.chroma")
    known = {"_sqlite_wing_room_counts": _by_wing, "sqlite_room_wing_hall_counts": _by_room}
    for name in known:
        require(parameters(getattr(chroma, name, None)) == ["palace_path", "collection_name"], f"there is no {name}")
    overview = _overview(mempalace)
    for name, derive in known.items():
        replace(_from_counts(overview, getattr(chroma, name), derive), name, chroma)


# -- pages ---------------------------------------------------------------------------------------------


class _Lazy(UserList[Any]):
    """A list that is loaded only when more is needed than its subclasses know."""

    def __init__(self, load: Callable[[], list[Any]]) -> None:
        self._load = load

    @functools.cached_property
    def data(self) -> list[Any]:  # type: ignore[override]
        return self._load()


class _Ids(_Lazy):
    """The ids of all rows of an answer; only the list of their drawers is known."""

    def __init__(self, load: Callable[[], list[Any]], names: list[str], page: Callable[[list[str]], list[Row]]) -> None:
        super().__init__(load)
        self.names = names
        self.page = page


class _Drawers(_Lazy):
    """The drawers that `_collapse_drawer_rows` makes of such an answer."""

    def __init__(self, load: Callable[[], list[Any]], ids: _Ids, collapse: Any) -> None:
        super().__init__(load)
        self._ids = ids
        self._collapse = collapse

    def __len__(self) -> int:
        return len(self._ids.names)

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice) or "data" in vars(self):
            return self.data[at]
        try:
            rows = self._ids.page(self._ids.names[at])
        except sqlite3.Error:
            return self.data[at]
        return self._collapse([name for name, _ in rows], [], [metadata for _, metadata in rows])


class _Pages:
    """Stands in for the two functions that `list_drawers` reads and sorts all drawers with."""

    def __init__(self, overview: DrawerOverview, chroma: Any, server: Any) -> None:
        self._overview = overview
        self._rows = chroma.sqlite_list_id_metadata
        self._filters = chroma._equality_filters
        self._collapse = server._collapse_drawer_rows
        self._proved: bool | None = None

    def rows(self, palace_path: str, collection_name: str, where: Any = None, *, _connection: Any = None) -> Any:
        """Stand in for `sqlite_list_id_metadata`: return (ids, metadata) of all drawers that match."""
        overview = self._overview

        def stock() -> Any:
            return self._rows(palace_path, collection_name, where=where, _connection=_connection)

        filters = self._filters(where)
        if _connection is None or filters is None or self._proved is False:
            return stock()
        if (palace_path, collection_name) != (overview.palace, overview.collection):
            return stock()
        try:
            names = overview.listed(_connection, filters)
        except sqlite3.Error:
            return stock()
        if names is None:
            found = stock()
            if found is not None:
                overview.learn(_connection, filters, list(zip(*found)))
            return found
        once = functools.lru_cache(1)(stock)
        page = functools.partial(overview.rows_listed_as, _connection, filters=filters)
        return _Ids(lambda: list(once()[0]), names, page), _Lazy(lambda: list(once()[1]))

    def collapse(self, ids: Any, documents: Any, metadatas: Any) -> Any:
        """Stand in for `_collapse_drawer_rows`."""
        if not isinstance(ids, _Ids):
            return self._collapse(ids, documents, metadatas)

        def stock() -> Any:
            return self._collapse(list(ids), documents, list(metadatas))

        drawers = _Drawers(stock, ids, self._collapse)
        if self._proved is None:
            usual = stock()
            ends = slice(100), slice(-100, None)
            self._proved = len(usual) == len(drawers) and all(usual[end] == drawers[end] for end in ends)
            if not self._proved:
                _differs("list_drawers")
            elif not usual:
                self._proved = None  # an empty answer proves nothing
            return usual
        return drawers


def _apply_pages(mempalace: Mempalace) -> None:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    rows: Any = getattr(chroma, "sqlite_list_id_metadata", None)
    known = ["palace_path", "collection_name", "where", "_connection"]
    require(parameters(rows) == known, "this mempalace lists drawers in another way")
    require(
        parameters(getattr(chroma, "_equality_filters", None)) == ["where"],
        "this mempalace filters drawers in another way",
    )
    collapse: Any = getattr(server, "_collapse_drawer_rows", None)
    require(
        parameters(collapse) == ["ids", "documents", "metadatas"],
        "this mempalace joins the chunks of drawers in another way",
    )
    pages = _Pages(_overview(mempalace), chroma, server)
    replace(pages.rows, "sqlite_list_id_metadata", chroma)
    replace(pages.collapse, "_collapse_drawer_rows", server)


KEPT_COUNTS = TuneUp(
    "kept-counts",
    "drawers are counted once by wing and room, and our own writes update the counts",
    "upstream counts all of them again after each write",
    _apply_counts,
)
KEPT_PAGES = TuneUp(
    "kept-pages",
    "drawers are sorted once for each filter, and our own writes update the lists",
    "upstream reads and sorts all of them to list one page",
    _apply_pages,
)
