"""Has mempalace's hooks save through the broker: one value in mempalace's own config.json. Pure: text in, text out.

With "prefer", a hook saves by itself when no broker runs, as before. mempalace knows this value from 3.8 on.
"""

from __future__ import annotations

from ....errors import UsageError
from . import jsonc
from .plan import UNUSABLE_BACKUP, Outcome, Plan

PATH = ("write_routing", "hooks")
_DEFAULT = ("write_routing", "default")
_WANTED = "prefer"
_THROUGH_US = (_WANTED, "require")
_UNKNOWN = (
    "its hooks save through the broker; the copy that setup makes is not there, so this may be your own setting.",
    f'take "hooks": "{_WANTED}" out by hand, if it should go',
)


def plan_hooks(text: str) -> Plan:
    """Plan the change that makes hooks save through the broker; a choice of the user's own stays."""
    try:
        said = next((value for path in (PATH, _DEFAULT) if (value := jsonc.get(text, path)) is not None), None)
        if said is None:
            return Plan(Outcome.ADD, jsonc.put(text, PATH, _WANTED))
    except UsageError as exc:
        return Plan(Outcome.LEAVE, text, exc.message, exc.hint)
    if said in _THROUGH_US:
        return Plan(Outcome.NOTHING, text)
    return Plan(
        Outcome.LEAVE,
        text,
        f"its write_routing says {said}.",
        f'set "hooks": "{_WANTED}" there to save through the broker',
    )


def plan_hooks_removal(text: str, backup: str | None, *, unusable: bool = False) -> Plan:
    """Plan the change that undoes `plan_hooks`.

    Args:
        backup: the file as it was before, None where it can't be read or is not there.
        unusable: something has the backup's name, and it is not a copy that can be read. Only we make that name, so the
            value is ours; what was there before is unknown.
    """
    try:
        ours = jsonc.get(text, PATH) == _WANTED
        if backup is None and not unusable:
            return Plan(Outcome.NOTHING, text, *(_UNKNOWN if ours else ()))
        if backup is not None and plan_hooks(backup).after == text:
            return Plan(Outcome.RESTORE, backup)
        if not ours:
            return Plan(Outcome.NOTHING, text)
        if backup is not None and _is_readable(backup):
            return Plan(Outcome.REMOVE, _without(text, alone=jsonc.get(backup, PATH[:1]) is None))
        return Plan(Outcome.REMOVE, _without(text, alone=len(jsonc.get(text, PATH[:1])) == 1), *UNUSABLE_BACKUP)
    except UsageError as exc:
        return Plan(Outcome.LEAVE, text, exc.message, exc.hint)


def _without(text: str, *, alone: bool) -> str:
    """The text without our value. `alone`: without the object that it is in, too."""
    return jsonc.drop(text, PATH[:1] if alone else PATH)


def _is_readable(backup: str) -> bool:
    try:
        jsonc.get(backup, PATH)
    except UsageError:
        return False
    return True
