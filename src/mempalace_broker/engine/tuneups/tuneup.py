"""A tune-up: one change to the running mempalace, with the check that it fits."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

if TYPE_CHECKING:
    from ..adapter import Mempalace


class DoesNotFit(Exception):
    """This mempalace is not the one that the tune-up was made for; the text says why."""


class TuneUp(NamedTuple):
    """One change to the running mempalace.

    Attributes:
        name: as `status` and `doctor` list it.
        effect: what it does.
        reason: why it is worth doing.
        apply: checks that it fits, then changes mempalace's modules. Otherwise raises DoesNotFit and changes nothing.
        any_backend: whether it has nothing to do with Chroma.
    """

    name: str
    effect: str
    reason: str
    apply: Callable[[Mempalace], None]
    any_backend: bool = False


def require(condition: bool, otherwise: str) -> None:
    """Raise DoesNotFit with `otherwise` unless `condition` holds."""
    if not condition:
        raise DoesNotFit(otherwise)


def parameters(function: Any) -> list[str]:
    """Names of a function's parameters; empty where it has no signature."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def replace(new: Any, name: str, *owners: Any) -> None:
    """Set the attribute `name` of each owner to `new`."""
    for owner in owners:
        setattr(owner, name, new)
