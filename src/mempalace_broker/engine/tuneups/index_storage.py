"""Tune-ups that keep the index whole through kill -9; see index_guard for why it would not be."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from ..index_guard import IndexGuard
from .chroma_writes import watch_writes
from .tuneup import DoesNotFit, TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace

_STORE_EVERY = 1000  # writes; Chroma's own default, and mempalace 3.11's (_HNSW_WRITE_DEFAULTS)
_BATCH_SIZE = 100  # from the same two places
_SELDOM_ENOUGH = 100  # a threshold from here on is left as it is
_COPIES = "broker-index"
_SAID = "hnsw:sync_threshold"  # in a collection's metadata, where mempalace looks for the threshold


def _stores_often(chroma: Any) -> bool:
    """Whether this mempalace has the index of a new collection stored often, as 3.4 to 3.6 do."""
    defaults: Any = getattr(chroma, "_HNSW_BLOAT_GUARD", None)
    threshold = defaults.get(_SAID, 0) if isinstance(defaults, dict) else 0
    return bool(0 < threshold < _SELDOM_ENOUGH)


def _apply_store_seldom(mempalace: Mempalace) -> None:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    require(_stores_often(chroma), "not needed: this version stores the index seldom")
    stock: Any = getattr(chroma, "_pin_hnsw_threads", None)
    require(parameters(stock) == ["collection"], "_pin_hnsw_threads is not what it was")
    _require_reader(chroma)
    try:
        settings = importlib.import_module("chromadb.api.collection_configuration")
        update, hnsw = settings.UpdateCollectionConfiguration, settings.UpdateHNSWConfiguration
    except (ImportError, AttributeError) as exc:
        raise DoesNotFit(f"this chromadb has no such setting: {exc}") from exc
    palace = mempalace.palace_path()

    def pin_and_relax(collection: Any) -> None:
        """Do as upstream, and store the index every thousand writes; the queue in the database holds the rest."""
        stock(collection)
        try:
            _say(chroma, palace, collection, _STORE_EVERY)  # first: a check that allows for too much does no harm
            collection.modify(configuration=update(hnsw=hnsw(sync_threshold=_STORE_EVERY, batch_size=_BATCH_SIZE)))
        except Exception as exc:  # noqa: BLE001 - as upstream's own pin: the collection works without it
            print(f"the index of {collection.name} is stored often: {exc}", file=sys.stderr, flush=True)

    replace(pin_and_relax, "_pin_hnsw_threads", chroma, server)


def _apply_said_threshold(mempalace: Mempalace) -> None:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    require(not _stores_often(chroma), "not needed: store-seldom does it with this version")
    stock: Any = getattr(chroma, "_pin_hnsw_threads", None)
    require(parameters(stock) == ["collection"], "_pin_hnsw_threads is not what it was")
    _require_reader(chroma)
    palace = mempalace.palace_path()

    def pin_and_say(collection: Any) -> None:
        """Do as upstream, and have the metadata name the threshold in force where it names a lower one."""
        stock(collection)
        try:
            said = (collection.metadata or {}).get(_SAID)
            real = (collection.configuration_json.get("hnsw") or {}).get("sync_threshold")
            if isinstance(said, int) and isinstance(real, int) and said < real:
                _say(chroma, palace, collection, real)
        except Exception as exc:  # noqa: BLE001 - mempalace then judges the index as it would without us
            print(f"{collection.name} still names another threshold: {exc}", file=sys.stderr, flush=True)

    replace(pin_and_say, "_pin_hnsw_threads", chroma, server)


def _require_reader(chroma: Any) -> None:
    """Raise DoesNotFit unless mempalace reads the threshold by a function that can be asked whether it sees ours."""
    known = parameters(getattr(chroma, "_read_sync_threshold", None))
    require(known == ["palace_path", "collection_name"], "_read_sync_threshold is not what it was")


def _say(chroma: Any, palace: str, collection: Any, threshold: int) -> None:
    """Have the collection's metadata name its threshold; from 3.5 on mempalace judges a stored index by it.

    With the old value it takes drawers that wait in the queue for lost, and searches without vectors. Chroma's public
    `modify` refuses metadata that names the distance, even the same; without it mempalace would not know the distance.

    Raises:
        Exception: it can't be changed, or mempalace does not read what was written.
    """
    metadata = {**(collection.metadata or {}), _SAID: threshold}
    if collection.metadata != metadata:
        collection._client._modify(
            id=collection.id, new_metadata=metadata, tenant=collection.tenant, database=collection.database
        )
        collection._model["metadata"] = metadata  # as `modify` does
    read = chroma._read_sync_threshold(palace, collection.name)
    if read != threshold:
        raise ValueError(f"mempalace reads a threshold of {read}")


def _apply_index_guard(mempalace: Mempalace) -> None:
    journal = mempalace.options.journal
    require(bool(journal), "no state root is known")
    copies = os.path.join(os.path.dirname(str(journal)), _COPIES)
    palace = os.path.realpath(mempalace.palace_path())
    guard = IndexGuard(palace, copies, lambda text: print(text, file=sys.stderr, flush=True))
    watch_writes(lambda write: guard.after_write(write.rows))
    mempalace.before_close.append(guard.settle)
    mempalace.before_open.append(guard.repair)


STORE_SELDOM = TuneUp(
    "store-seldom",
    "the index is stored every 1000 writes instead of every second one",
    "a kill in the middle of storing tears it; the database's queue keeps the writes since then",
    _apply_store_seldom,
)
SAID_THRESHOLD = TuneUp(
    "said-threshold",
    "a collection whose index is stored seldom says so where mempalace looks",
    "else mempalace takes what the index lacks yet for lost, and searches without vectors: after 3.4 to 3.6 with an "
    "early version of this tune-up",
    _apply_said_threshold,
)
INDEX_GUARD = TuneUp(
    "index-guard",
    "each stored index is copied aside, and put back where a kill tore it",
    "Chroma writes it in place",
    _apply_index_guard,
)
