"""Lets other calls run while a mine embeds the texts of a file, not only between two files.

mempalace locks a file, deletes its old drawers, embeds the new ones and stores them: nothing may come in between. But
a vector depends on its text alone. So here the texts of a file are embedded before mempalace begins with it, where no
lock is held and nothing is half written; after each of them waiting calls get their turn, as they do between two
files. mempalace then stores the file in one go, with the vectors that it finds in the cache.

The texts of a project's file are found out by a rehearsal: mempalace's own code files it into collections that keep
nothing. Its search for entities is left out: that is nearly all of the work, and no text holds them. A file that
changes meanwhile is filed as it is by then; the vectors of new texts are made in its own turn.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .tuneup import DoesNotFit, TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..adapter import Mempalace

_CALLS = 1  # between two parts: three would halve the time of searches, and cost the mine 1.4 times its own
_MOST_TEXTS = 8192  # of one file; the rest is embedded in its own turn
_PROJECT_FILE = ("filepath", "project_path", "collection", "wing", "rooms", "agent", "dry_run", "closets_col")
_ENTITIES = "_extract_entities_for_metadata"
_CHUNKS = ("collection", "source_file", "chunks", "wing", "room", "agent")


class _Enough(Exception):
    """The rehearsed file has more texts than are wanted."""


class _Rehearsed:
    """Stands in for a collection: notes the texts that are written to it, and has none of them.

    Until something is deleted, reads are the real collection's: mempalace asks it whether the file is known already.
    """

    def __init__(self, collection: Any, texts: list[str], most: int) -> None:
        self._collection = collection
        self._texts = texts
        self._most = most
        self._answers: dict[str, Any] = {}
        self._deleted = False

    def get(self, **query: Any) -> Any:
        """Rows that match; the same question is asked once."""
        if self._deleted:
            return {"ids": [], "metadatas": []}
        key = repr(sorted(query.items()))
        if key not in self._answers:
            self._answers[key] = self._collection.get(**query)
        return self._answers[key]

    def delete(self, **_which: Any) -> None:
        """Delete nothing."""
        self._deleted = True

    def upsert(self, *, documents: Sequence[str], **_rows: Any) -> None:
        """Note the texts. Raises _Enough once there are too many."""
        self._texts.extend(documents)
        if len(self._texts) > self._most:
            raise _Enough


class _Embeddings(NamedTuple):
    """The engine's embeddings."""

    embed: Callable[[str], None]  # into the cache
    keep: Callable[[int], None]  # sets how many are kept


class _Parts:
    """The parts of a file that is mined into one palace: each ends at a place where other calls may run."""

    def __init__(self, mempalace: Mempalace, embeddings: _Embeddings) -> None:
        self._mempalace = mempalace
        self._module = mempalace.module("palace")
        self._embeddings = embeddings

    @contextlib.contextmanager
    def embedded(self, texts: list[str], collection: Any, closets: Any = None) -> Iterator[None]:
        """Embed the texts of a file, letting other calls run in between, and keep the vectors within the block."""
        texts = texts[:_MOST_TEXTS]
        self._embeddings.keep(len(texts))
        try:
            self._embed(texts, collection, closets)
            yield
        finally:
            self._embeddings.keep(0)

    def _embed(self, texts: list[str], collection: Any, closets: Any) -> None:
        others_ran = False
        for text in texts:
            try:
                self._embeddings.embed(text)
            except Exception as exc:  # noqa: BLE001 - mempalace embeds it again, and reports the error
                print(f"not embedded ahead: {exc}", file=sys.stderr)
                break
            if self._mempalace.between_texts is not None:
                others_ran |= self._mempalace.between_texts()
        if others_ran:  # one of them may have closed what the mine has open
            path = self._mempalace.palace_path()
            _renew(collection, self._module.get_collection(path))
            if closets is not None:
                _renew(closets, self._module.get_closets_collection(path))


def _renew(collection: Any, opened: Any) -> None:
    """Make a collection that the mine holds the one that is open now. The mine itself opens it again only per file."""
    if type(opened) is type(collection):
        vars(collection).update(vars(opened))


# -- what is filed -------------------------------------------------------------------------------------


def _texts_of(stock: Callable[..., Any], given: dict[str, Any], miner: Any) -> list[str]:
    """The texts that mempalace would store for a file: `stock`, of `miner`, is called with these arguments."""
    cap = given.get("max_chunks_per_file")
    if not isinstance(cap, int):
        return []  # unknown: a mine names it
    most = cap if cap > 0 else _MOST_TEXTS
    drawers: list[str] = []
    closets: list[str] = []
    rehearsed: dict[str, Any] = {"collection": _Rehearsed(given["collection"], drawers, most)}
    if given.get("closets_col") is not None:
        rehearsed["closets_col"] = _Rehearsed(given["closets_col"], closets, most)
    try:
        with _without_entities(miner):
            stock(**{**given, **rehearsed, "max_chunks_per_file": 0})  # 0: no limit, and no message about it
    except _Enough:
        pass
    except Exception as exc:  # noqa: BLE001 - mempalace meets it again when it files the file
        print(f"not embedded ahead: {exc}", file=sys.stderr)
        return []
    return [] if 0 < cap < len(drawers) else drawers + closets  # with more than that it is not filed


@contextlib.contextmanager
def _without_entities(miner: Any) -> Iterator[None]:
    """Have mempalace find no entities in this block."""
    stock = getattr(miner, _ENTITIES, None)
    if stock is None:
        yield
        return
    replace(lambda _content: "", _ENTITIES, miner)
    try:
        yield
    finally:
        replace(stock, _ENTITIES, miner)


def _of_project(stock: Callable[..., Any], parts: _Parts, miner: Any) -> Callable[..., Any]:
    signature = inspect.signature(stock)

    def process_file(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        if given["dry_run"]:
            return stock(*args, **kwargs)
        with parts.embedded(_texts_of(stock, given, miner), given["collection"], given.get("closets_col")):
            return stock(*args, **kwargs)

    return process_file


def _of_chunks(stock: Callable[..., Any], parts: _Parts) -> Callable[..., Any]:
    def file_chunks(collection: Any, source_file: Any, chunks: Any, *args: Any, **kwargs: Any) -> Any:
        with parts.embedded([chunk["content"] for chunk in chunks], collection):
            return stock(collection, source_file, chunks, *args, **kwargs)

    return file_chunks


def _apply(mempalace: Mempalace) -> None:
    palace, miner = mempalace.module("palace"), mempalace.module("miner")
    for name in ("mine_yield_hook", "get_collection", "get_closets_collection"):
        require(callable(getattr(palace, name, None)), "this version lets no call run while it mines")
    embed, keep = mempalace.prefetch_embedding, mempalace.keep_embeddings
    if embed is None or keep is None:
        raise DoesNotFit("own-length is not in force")
    project: Any = getattr(miner, "process_file", None)
    known = parameters(project)
    require(tuple(known[: len(_PROJECT_FILE)]) == _PROJECT_FILE, "process_file is not what it was")
    require("max_chunks_per_file" in known, "process_file is not what it was")
    others = [mempalace.module("convo_miner"), mempalace.module("format_miner")]
    chunked = [(module, getattr(module, "_file_chunks_locked", None)) for module in others]
    for _, stock in chunked:
        require(tuple(parameters(stock)[: len(_CHUNKS)]) == _CHUNKS, "_file_chunks_locked is not what it was")
    parts = _Parts(mempalace, _Embeddings(embed, keep))
    replace(_of_project(project, parts, miner), "process_file", miner)
    for module, stock in chunked:
        replace(_of_chunks(stock, parts), "_file_chunks_locked", module)  # type: ignore[arg-type]  # it has parameters
    mempalace.calls_at_boundary = _CALLS


MINE_PARTS = TuneUp(
    "mine-parts",
    "other calls run while a mine embeds the texts of a file",
    "upstream lets them wait until the whole file is stored",
    _apply,
    any_backend=True,
)
