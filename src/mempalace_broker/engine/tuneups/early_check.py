"""Takes the good verdict of the check that ran while mempalace was imported: see engine/database_check.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .tuneup import TuneUp, parameters, replace, require

if TYPE_CHECKING:
    from ..adapter import Mempalace


def _apply(mempalace: Mempalace) -> None:
    require(mempalace.model is not None, "mempalace was imported as usual")
    assert mempalace.model is not None
    check = mempalace.model.database
    ensure: Any = getattr(mempalace.server, "_ensure_sqlite_integrity_status", None)
    require(ensure is not None and not parameters(ensure), "this version does not check the database")
    repair = mempalace.module("repair")
    stock: Any = getattr(repair, "_quick_check_errors", None)
    require(parameters(stock) == ["sqlite_path"], "_quick_check_errors is not what it was")

    def errors(sqlite_path: str) -> Any:
        return [] if check.is_sound(sqlite_path) else stock(sqlite_path)

    def ask_first() -> list[dict[str, str]]:
        """Have mempalace ask before the palace is opened, which changes the database's time stamp.

        Without a good verdict mempalace asks later, as it is made to: what a killed engine has left in the log can't be
        checked by a reader, until Chroma has opened the database.
        """
        if check.is_sound(check.database):
            replace(errors, "_quick_check_errors", repair)
            try:
                ensure()
            finally:
                replace(stock, "_quick_check_errors", repair)
        return []

    mempalace.before_open.append(ask_first)


EARLY_CHECK = TuneUp(
    "early-check",
    "SQLite checks the database while mempalace is imported",
    "upstream has it checked before the first call, and waits for that",
    _apply,
)
