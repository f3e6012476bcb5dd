"""Copies a palace's drawers into another backend, vectors unchanged, for `mempalace-broker move-to`.

Runs as a process of its own in the user's interpreter, and exits with 0 only if the target holds exactly the rows of
the source. Rows that the target already has are compared and kept, so a killed move continues when it is repeated.
Files of the target are made in a folder that the command names; it renames them into the palace afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import EXIT_FAILURE, EXIT_OK
from ..system.palace_stores import SERVERS
from .adapter import EngineFailure, Mempalace, Options
from .parking import real_path
from .shared_opens import OpenGuard
from .store_markers import guard_markers
from .stored_embedders import distrust_stored_embedders
from .unparking import refuse_swapped_stores
from .write_limits import limit_writes

PAGE = 500  # rows read and written at once
_SAMPLES = 20  # rows that are searched for
_NEAR = 1e-4  # of a projection, or a distance: Chroma normalises vectors again, and PostgreSQL keeps 4-byte floats
_HITS = 5
_REPORT_S = 5.0  # between two lines about the same step
_REPLACE = "add --replace to overwrite them, or remove its tables"


class MoveFailed(Exception):
    """The move failed; the text says why. The source is unchanged."""


class Row(NamedTuple):
    """Identifies the contents of a row: a digest of text and metadata, and the vector's projection on a fixed one."""

    digest: bytes
    projection: float

    def same(self, other: Row | None) -> bool:
        """Return whether both describe the same contents."""
        return other is not None and self.digest == other.digest and abs(self.projection - other.projection) < _NEAR


class Page(NamedTuple):
    """Some rows of a collection; lists of equal length."""

    ids: list[str]
    documents: list[str]
    metadatas: list[dict[str, Any]]
    vectors: Any  # numpy: float32, one row each

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield each id with its row."""
        np: Any = importlib.import_module("numpy")
        lengths = np.linalg.norm(self.vectors, axis=1)
        against = np.random.default_rng(1).standard_normal(self.vectors.shape[1]) if len(self.ids) else None
        projections = (self.vectors @ against) / np.maximum(lengths, 1e-12) if len(self.ids) else []
        for id_, document, metadata, projection in zip(self.ids, self.documents, self.metadatas, projections):
            yield id_, Row(_digest(document, metadata), float(projection))


def _digest(document: str, metadata: dict[str, Any]) -> bytes:
    """Digest a row as every backend returns it: PostgreSQL stores no NUL, no lone surrogate, and 1.0 as 1."""
    known = {key: _plain(value) for key, value in metadata.items() if value is not None}
    text = json.dumps([_plain(document), known], sort_keys=True, default=str).replace("\\u0000", "")
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Step:
    """Reports on stderr how far a step of a long move is.

    Args:
        name: of the collection. what: is done to its rows. total: how many there are.
    """

    def __init__(self, name: str, what: str, total: int) -> None:
        self._what = f"{name}: {what}"
        self._total = total
        self._next = time.monotonic() + _REPORT_S

    def reached(self, rows: int) -> None:
        """Report that so many rows are done, unless that would be too often."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_S
            with contextlib.suppress(OSError):  # nobody reads it
                print(f"{self._what} {rows:,} of {self._total:,} rows ...", file=sys.stderr, flush=True)


def pages(collection: Any, step: Step) -> Iterator[Page]:
    """Yield all rows of a collection. It must not change meanwhile."""
    np: Any = importlib.import_module("numpy")
    at = 0
    while True:
        step.reached(at)
        got = collection.get(limit=PAGE, offset=at, include=["documents", "metadatas", "embeddings"])
        if not got.ids:
            return
        metadatas = [metadata or {} for metadata in got.metadatas]
        documents = [document or "" for document in got.documents]
        yield Page(list(got.ids), documents, metadatas, np.array(got.embeddings, dtype=np.float32))
        at += len(got.ids)


def table_of(collection: Any, step: Step) -> dict[str, Row]:
    """Return every id of a collection with its row."""
    return {id_: row for page in pages(collection, step) for id_, row in page.rows()}


def synchronise(name: str, source: Any, target: Any) -> tuple[dict[str, Row], int, int]:
    """Make `target` equal to `source`; return its rows, and how many were written and removed."""
    there = table_of(target, Step(name, "compared", target.count()))
    wanted, written = {}, 0
    for page in pages(source, Step(name, "copied", source.count())):
        rows = dict(page.rows())
        wanted.update(rows)
        missing = [n for n, id_ in enumerate(page.ids) if not rows[id_].same(there.get(id_))]
        if changed := [page.ids[n] for n in missing if page.ids[n] in there]:
            target.delete(ids=changed)  # Chroma keeps what an upsert leaves out
        if missing:
            target.upsert(
                ids=[page.ids[n] for n in missing],
                documents=[page.documents[n] for n in missing],
                metadatas=[page.metadatas[n] for n in missing],
                embeddings=page.vectors[missing].tolist(),
            )
        written += len(missing)
    gone = sorted(there.keys() - wanted.keys())
    for at in range(0, len(gone), PAGE):
        target.delete(ids=gone[at : at + PAGE])
    return wanted, written, len(gone)


def verify(name: str, source: Any, target: Any, wanted: dict[str, Row]) -> None:
    """Compare counts, ids and every row, and search for some of them. Raises MoveFailed."""
    counts = source.count(), len(wanted), target.count()
    if len(set(counts)) != 1:
        raise MoveFailed(
            f"{name}: {counts[0]} rows in the old store, {counts[1]} read from it, {counts[2]} in the new one"
        )
    there = table_of(target, Step(name, "verified", len(wanted)))
    if there.keys() != wanted.keys():
        raise MoveFailed(f"{name}: {len(there.keys() ^ wanted.keys())} ids are in one store only")
    if differ := [id_ for id_, row in wanted.items() if not row.same(there[id_])]:
        raise MoveFailed(f"{name}: {len(differ)} rows differ, among them {differ[0]}")
    for at in range(0, len(wanted), max(1, len(wanted) // _SAMPLES)):
        got = source.get(limit=1, offset=at, include=["embeddings"])  # by ids, pgvector would read its whole table
        _search(name, target, got.ids[0], [float(x) for x in got.embeddings[0]])


def _search(name: str, target: Any, id_: str, vector: list[float]) -> None:
    found = target.query(query_embeddings=[vector], n_results=_HITS, include=["distances"])
    nearest = found.distances[0][0] if found.ids[0] else None
    if id_ not in found.ids[0] and (nearest is None or nearest > _NEAR):  # else other rows have the same vector
        raise MoveFailed(f"{name}: a search for the vector of {id_} does not find it in the new store")


# -- both stores ---------------------------------------------------------------------------------------


class Mover:
    """The two stores of one palace. `staging`: the folder for the target's files."""

    def __init__(self, mempalace: Mempalace, target: str, staging: str) -> None:
        backends = mempalace.module("backends")
        self._mempalace = mempalace
        self._base: Any = mempalace.module("backends.base")
        if backends is None or target not in backends.available_backends():
            raise MoveFailed(f"mempalace {mempalace.version} has no backend {target}")
        self._from, self._to = backends.get_backend(mempalace.backend), backends.get_backend(target)
        path = mempalace.palace_path()
        self._old = mempalace.server.PalaceRef(id=path, local_path=path)
        # servers name their tables after the palace's path; other backends keep their files there
        self._new = mempalace.server.PalaceRef(id=path if target in SERVERS else staging, local_path=staging)

    def names(self) -> list[str]:
        """Return the names of mempalace's collections."""
        named: Any = self._mempalace.module("palace")
        fixed = [getattr(named, name, "") for name in ("CLOSETS_COLLECTION_NAME", "ASSETS_COLLECTION_NAME")]
        return [str(self._mempalace.server._config.collection_name), *filter(None, fixed)]

    def refuse_to_replace(self) -> None:
        """Raise MoveFailed where the target holds rows of this palace."""
        for name in self.names():
            there = self._to.get_collection(palace=self._new, collection_name=name, create=True)
            if count := there.count():
                raise MoveFailed(f"the new store already holds {count:,} rows of this palace in {name}: {_REPLACE}")

    def move(self) -> Iterator[str]:
        """Copy and verify; yield a line about each collection. Raises MoveFailed."""
        total = 0
        for name in self.names():
            source = self._opened(self._from, self._old, name)
            if source is None or not source.count():
                continue
            target = self._to.get_collection(palace=self._new, collection_name=name, create=True)
            identity = source.get_stored_embedder_identity()
            if identity is not None:
                target.set_embedder_identity(identity)
            wanted, written, removed = synchronise(name, source, target)
            if hasattr(self._to, "_write_marker") and hasattr(target, "_config"):
                self._to._write_marker(self._new, target._config)  # otherwise only a write would make it
            verify(name, source, target, wanted)
            total += len(wanted)
            yield f"{name}: {len(wanted):,} rows, {written:,} written now, {removed:,} removed; all verified"
        if not total:
            raise MoveFailed("the palace has no drawers yet: set the backend instead, see docs/scale.md")

    def _opened(self, backend: Any, palace: Any, name: str) -> Any:
        try:
            return backend.get_collection(palace=palace, collection_name=name, create=False)
        except self._base.PalaceNotFoundError:
            return None

    def close(self) -> None:
        """Flush and close both stores."""
        for backend, palace in ((self._from, self._old), (self._to, self._new)):
            backend.close_palace(palace)
            backend.close()


def _refuse_fixed(mempalace: Mempalace, target: str) -> None:
    """Raise MoveFailed unless the palace's files decide the backend: then renaming them completes the move."""
    said = getattr(mempalace.server._config, "_file_config", None)
    named = said.get("backend") if isinstance(said, dict) else None
    if named and named != target:
        raise MoveFailed(f'{mempalace.config_path()} fixes the backend: remove "backend" from it first')
    if os.environ.get("MEMPALACE_BACKEND", target) != target:
        raise MoveFailed("MEMPALACE_BACKEND fixes the backend: remove it from the environment or config.toml first")
    if mempalace.backend == target:
        raise MoveFailed(f"the drawers are in {target} already")


def main(argv: list[str]) -> None:
    """Move the drawers, then exit the process."""
    parser = argparse.ArgumentParser(prog="mempalace-broker-move")
    for name in ("--palace", "--by", "--root", "--target", "--staging"):
        parser.add_argument(name, required=True)
    parser.add_argument("--note", required=True)
    parser.add_argument("--replace", action="store_true")
    args = parser.parse_args(argv)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)  # importing mempalace moves 1
    code = EXIT_OK
    try:
        OpenGuard([args.palace, args.root, args.staging]).install()  # as the engine: guests may write in all of them
        mempalace = Mempalace(Options(args.palace, args.by))
        _refuse_fixed(mempalace, args.target)
        limit_writes(mempalace, args.note)
        guard_markers(mempalace, mempalace.backend, args.target)
        distrust_stored_embedders()
        mempalace.take_write_lock()
        for folder in (real_path(mempalace.palace_path()), args.staging):  # guests may have put links there by now
            refuse_swapped_stores(mempalace, folder)
        mover = Mover(mempalace, args.target, args.staging)
        if not args.replace:
            mover.refuse_to_replace()
        _note(args.note, args.target)
        for line in mover.move():
            print(line, file=out)
        mover.close()
    except EngineFailure as exc:
        code = _failed(exc.message.rstrip("."), exc.hint)
    except MoveFailed as exc:
        code = _failed(str(exc))
    except Exception as exc:  # noqa: BLE001 - of the user's mempalace or its database; the text may be all there is
        code = _failed(f"{type(exc).__name__}: {exc}")
    out.close()
    os._exit(code)  # threads inside Chroma must not delay it


def _note(path: str, target: str) -> None:
    """Note, where only the user can write, that the rows in the target are ours from now on."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"target": target}, file)
            file.flush()
            os.fsync(file.fileno())


def _failed(why: str, hint: str = "") -> int:
    text = f"mempalace-broker: nothing was moved: {' '.join(why.split())}." + (f" Hint: {hint}" if hint else "")
    print(text, file=sys.stderr, flush=True)
    return EXIT_FAILURE
