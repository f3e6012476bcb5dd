"""Applies the tune-ups that fit, reports each, and keeps what an untuned mempalace would break out of its reach."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .absent import keep_absent
from .durability import INDEX_GUARD, STORE_SELDOM
from .embedding import OWN_LENGTH
from .tune_ups import BEFORE_OPENING, DELETE_FIX, DoesNotFit, TuneUp, deletes_destroy_index

if TYPE_CHECKING:
    from .adapter import Mempalace

ALL = (STORE_SELDOM, *BEFORE_OPENING, INDEX_GUARD, OWN_LENGTH)  # pin-once wraps what store-seldom puts in place

_DELETES = frozenset(
    {
        "mempalace_delete_drawer",
        "mempalace_delete_drawers",
        "mempalace_delete_by_source",
        "mempalace_mine",  # mining a changed file deletes its old drawers
    }
)


def tune(mempalace: Mempalace, *, wanted: bool) -> list[dict[str, Any]]:
    """Apply every tune-up that proves that it fits.

    Args:
        mempalace: not opened yet. wanted: False leaves all out.

    Returns:
        name, applied, why (what it does, or why it was left out) of each, for `status` and `doctor`.
    """
    report = [_apply(mempalace, one, wanted=wanted) for one in ALL]
    if not mempalace.is_chroma():
        return report
    keep_absent(mempalace)
    if deletes_destroy_index(mempalace):
        why = next(str(entry["why"]) for entry in report if entry["name"] == DELETE_FIX)
        mempalace.refusals.append(_refuse_deletes(mempalace.version, why))
    return report


def _apply(mempalace: Mempalace, one: TuneUp, *, wanted: bool) -> dict[str, Any]:
    try:
        if not wanted:
            raise DoesNotFit("switched off by MEMPALACE_BROKER_TUNE=0")
        if not mempalace.is_chroma():
            raise DoesNotFit("this palace is not stored in Chroma")
        mempalace.undo[one.name] = one.apply(mempalace)
    except DoesNotFit as exc:
        return {"name": one.name, "applied": False, "why": str(exc)}
    except Exception as exc:  # noqa: BLE001 - an unknown mempalace may raise anything; it then runs as it is
        print(f"tune-up {one.name} left out: {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
        return {"name": one.name, "applied": False, "why": f"{type(exc).__name__}: {exc}"}
    return {"name": one.name, "applied": True, "why": f"{one.what}; {one.why}"}


def _refuse_deletes(version: str, why: str) -> Any:
    message = (
        f"Not executed: mempalace {version} renames its search index away after a delete (upstream #1710), and the "
        f"fix is not in force ({why}). Hint: upgrade mempalace, or allow tune-ups (MEMPALACE_BROKER_TUNE=1), then "
        "`mempalace-broker restart`."
    )

    def refusal(tool: str, arguments: dict[str, Any]) -> str | None:
        deletes = tool in _DELETES or (tool == "mempalace_sync" and bool(arguments.get("apply")))
        return message if deletes else None

    return refusal
