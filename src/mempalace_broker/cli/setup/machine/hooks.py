"""Has mempalace's hooks save through the broker: one value in mempalace's own config.json. Pure: text in, text out.

With "prefer", a hook saves by itself when no broker runs, as before. mempalace knows this value from 3.8 on.
"""

from __future__ import annotations

from ....errors import UsageError
from . import jsonc
from .plan import Outcome, Plan

PATH = ("write_routing", "hooks")
_DEFAULT = ("write_routing", "default")
_WANTED = "prefer"
_THROUGH_US = (_WANTED, "require")


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


def plan_hooks_removal(text: str, backup: str | None) -> Plan:
    """Plan the change that undoes `plan_hooks`. `backup`: the file as it was before, None if the value is not ours."""
    if backup is None:
        return Plan(Outcome.NOTHING, text)
    try:
        if plan_hooks(backup).after == text:
            return Plan(Outcome.RESTORE, backup)
        if jsonc.get(text, PATH) != _WANTED:
            return Plan(Outcome.NOTHING, text)
        there = PATH if jsonc.get(backup, PATH[:1]) is not None else PATH[:1]
        return Plan(Outcome.REMOVE, jsonc.drop(text, there))
    except UsageError as exc:
        return Plan(Outcome.LEAVE, text, exc.message, exc.hint)
