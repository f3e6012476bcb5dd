"""Upstream bug #1710: after a delete, the next open takes the healthy index for a corrupt one and renames it away."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Callable

from ..index_dimension import DimensionWriter
from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace

    Refusal = Callable[[str, dict[str, Any]], "str | None"]

_CHECK = "_missing_dimensionality_appears_recoverable"
_DELETES = frozenset(
    {
        "mempalace_delete_drawer",
        "mempalace_delete_drawers",
        "mempalace_delete_by_source",
        "mempalace_mine",  # mining a changed file deletes its old drawers
    }
)


def deletes_destroy_index(mempalace: Mempalace) -> bool:
    """Whether this mempalace has bug #1710, as it is now: with the fix in force it has not."""
    check: Any = getattr(mempalace.module("backends.chroma"), _CHECK, None)
    if check is None:
        return False  # 3.4.0 has it; it was rewritten with the fix of June 2026
    return parameters(check) == ["persisted", "id_to_label", "seg_dir"] and _misjudges_deletes(check)


def _misjudges_deletes(check: Any) -> bool:
    return _accepts(check, additions=1) is True and _accepts(check, additions=2) is not True


def _accepts(check: Any, additions: int) -> Any:
    """What the check says of a sound index with one entry left after so many additions."""
    with tempfile.TemporaryDirectory(prefix="mempalace-broker-") as folder:
        for name in ("data_level0.bin", "link_lists.bin"):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(bytes(4096))
        return check({"total_elements_added": additions, "label_to_id": {1: "a"}}, {"a": 1}, folder)


def _apply(mempalace: Mempalace) -> None:
    require(deletes_destroy_index(mempalace), "not needed: this version has the upstream fix")
    chroma = mempalace.module("backends.chroma")
    stock, value = getattr(chroma, _CHECK), chroma._persisted_metadata_value

    def recoverable(persisted: object, id_to_label: Any, seg_dir: str) -> bool:
        """The counter of additions never falls, so after a delete it is above the number of labels."""
        total = value(persisted, "total_elements_added")
        if isinstance(total, int) and not isinstance(total, bool) and total > len(id_to_label):
            persisted = {
                "total_elements_added": len(id_to_label),
                "label_to_id": value(persisted, "label_to_id"),
            }
        return bool(stock(persisted, id_to_label, seg_dir))

    require(not _misjudges_deletes(recoverable), "the check still misjudges an index after a delete")
    replace(recoverable, _CHECK, chroma)
    log = functools.partial(print, file=sys.stderr, flush=True)
    mempalace.after_close.append(DimensionWriter(mempalace.palace_path(), log).write)


def refuse_deletes(version: str, why: str) -> Refusal:
    """A check of calls that refuses every delete. `why`: why the fix is not in force."""
    message = (
        f"Not executed: mempalace {version} renames its search index away after a delete (upstream #1710), and the "
        f"fix is not in force ({why}). Hint: upgrade mempalace, or allow tune-ups (MEMPALACE_BROKER_TUNE=1), then "
        "`mempalace-broker restart`."
    )

    def refusal(tool: str, arguments: dict[str, Any]) -> str | None:
        deletes = tool in _DELETES or (tool == "mempalace_sync" and bool(arguments.get("apply")))
        return message if deletes else None

    return refusal


DELETE_FIX = TuneUp(
    "delete-fix",
    "an index is judged sound after deletes, and left so that mempalace's own commands judge it sound",
    "upstream #1710: else the next open renames the healthy index away",
    _apply,
)
