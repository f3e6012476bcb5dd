"""Applies the tune-ups that fit, and refuses the calls that an untuned mempalace would do damage with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .capacity import CAPACITY_CACHE
from .delete_fix import DELETE_FIX, deletes_destroy_index, refuse_deletes
from .each_call import KEPT_SIGNATURES, QUICK_JSON
from .early_check import EARLY_CHECK
from .flat_reads import KEPT_COUNTS, KEPT_PAGES
from .index_storage import INDEX_GUARD, SAID_THRESHOLD, STORE_SELDOM
from .mine_parts import MINE_PARTS
from .own_length import OWN_LENGTH
from .read_caches import INSTALLED_CACHE, OVERVIEW_CACHE, OWN_WRITES, PIN_ONCE
from .read_often import COLLECTION_CACHE, CONFIG_CACHE, SCHEMA_CACHE
from .rows_by_id import ROWS_BY_ID
from .tuneup import DoesNotFit, TuneUp, require

if TYPE_CHECKING:
    from ..adapter import Mempalace


def _was_lean(mempalace: Mempalace) -> None:
    require(mempalace.model is not None, "mempalace was imported as usual")


def _had_its_model(mempalace: Mempalace) -> None:
    _was_lean(mempalace)
    assert mempalace.model is not None
    require(not mempalace.model.early.unused, mempalace.model.early.unused)


LEAN_IMPORTS = TuneUp(
    "lean-imports",
    "what mempalace imports and never uses is loaded when it is needed",
    "clients of other databases and exporters take half of the time that mempalace needs to start",
    _was_lean,
    any_backend=True,
)
EARLY_MODEL = TuneUp(
    "early-model",
    "the model is loaded while mempalace is imported",
    "that takes half as long as the imports, and upstream loads it in the first call that embeds",
    _had_its_model,
    any_backend=True,
)
# in this order: pin-once wraps what the two before put in place
BEFORE_OPENING = (
    LEAN_IMPORTS,
    STORE_SELDOM,
    SAID_THRESHOLD,
    DELETE_FIX,
    PIN_ONCE,
    OWN_WRITES,
    CAPACITY_CACHE,
    OVERVIEW_CACHE,
    EARLY_CHECK,
    INDEX_GUARD,
    CONFIG_CACHE,
    COLLECTION_CACHE,
    SCHEMA_CACHE,
    KEPT_COUNTS,
    KEPT_PAGES,
    ROWS_BY_ID,
    INSTALLED_CACHE,
    QUICK_JSON,
    KEPT_SIGNATURES,
)
WITH_MODEL = (EARLY_MODEL, OWN_LENGTH, MINE_PARTS)


def apply_tuneups(mempalace: Mempalace, *, wanted: bool) -> list[dict[str, Any]]:
    """Apply every tune-up that fits and needs no model, before the palace is opened; with `wanted` false, none.

    Returns:
        `name`, `applied` and `why` (what it does, or why it was left out) of each, for `status` and `doctor`.
    """
    report = [_apply(mempalace, tuneup, wanted=wanted) for tuneup in BEFORE_OPENING]
    if mempalace.is_chroma() and deletes_destroy_index(mempalace):
        why = next(str(entry["why"]) for entry in report if entry["name"] == DELETE_FIX.name)
        mempalace.refusals.append(refuse_deletes(mempalace.version, why))
    return report


def open_tuned(mempalace: Mempalace, report: list[dict[str, Any]]) -> int | None:
    """Open the palace for the first time, while the model loads; return the number of drawers, if known.

    Args:
        report: what `apply_tuneups` returned; gets the tune-ups that need the model.

    Raises:
        Exception: whatever opening raised.
    """
    if mempalace.model is not None:
        mempalace.model.database.wait()  # closing a database drops the locks of all in this process that have it open
    try:
        collection = mempalace.open_palace()
    finally:
        if mempalace.model is not None:
            mempalace.model.wait()
        report += [_apply(mempalace, tuneup, wanted=mempalace.options.tune) for tuneup in WITH_MODEL]
    return mempalace.warm_up(collection)


def _apply(mempalace: Mempalace, tuneup: TuneUp, *, wanted: bool) -> dict[str, Any]:
    try:
        if not wanted:
            raise DoesNotFit("switched off by MEMPALACE_BROKER_TUNE=0")
        if not (tuneup.any_backend or mempalace.is_chroma()):
            raise DoesNotFit("this palace is not stored in Chroma")
        tuneup.apply(mempalace)
    except DoesNotFit as exc:
        return {"name": tuneup.name, "applied": False, "why": str(exc)}
    except Exception as exc:  # noqa: BLE001 - an unknown mempalace may raise anything; it then runs as it is
        print(f"tune-up {tuneup.name} left out: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return {"name": tuneup.name, "applied": False, "why": f"{type(exc).__name__}: {exc}"}
    return {"name": tuneup.name, "applied": True, "why": f"{tuneup.effect}; {tuneup.reason}"}
