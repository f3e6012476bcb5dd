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


def _apply_store_seldom(mempalace: Mempalace) -> None:
    chroma, server = mempalace.module("backends.chroma"), mempalace.server
    defaults: Any = getattr(chroma, "_HNSW_BLOAT_GUARD", None)
    threshold = defaults.get("hnsw:sync_threshold", 0) if isinstance(defaults, dict) else 0
    require(0 < threshold < _SELDOM_ENOUGH, "not needed: this version stores the index seldom")
    stock: Any = getattr(chroma, "_pin_hnsw_threads", None)
    require(parameters(stock) == ["collection"], "_pin_hnsw_threads is not what it was")
    try:
        settings = importlib.import_module("chromadb.api.collection_configuration")
        update, hnsw = settings.UpdateCollectionConfiguration, settings.UpdateHNSWConfiguration
    except (ImportError, AttributeError) as exc:
        raise DoesNotFit(f"this chromadb has no such setting: {exc}") from exc

    def pin_and_relax(collection: Any) -> None:
        """Do as upstream, and store the index every thousand writes; the queue in the database holds the rest."""
        stock(collection)
        try:
            collection.modify(configuration=update(hnsw=hnsw(sync_threshold=_STORE_EVERY, batch_size=_BATCH_SIZE)))
        except Exception as exc:  # noqa: BLE001 - as upstream's own pin: the collection works without it
            print(f"the index of {collection.name} is stored often: {exc}", file=sys.stderr, flush=True)

    replace(pin_and_relax, "_pin_hnsw_threads", chroma, server)


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
INDEX_GUARD = TuneUp(
    "index-guard",
    "each stored index is copied aside, and put back where a kill tore it",
    "Chroma writes it in place",
    _apply_index_guard,
)
