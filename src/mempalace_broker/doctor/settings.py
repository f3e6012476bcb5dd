"""Findings about the settings: the user's own, and those in the shared state root, most of which do not count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .findings import error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts
    from .findings import Finding

_MOST = 10  # misplaced settings that are named one by one


def settings(facts: Facts) -> Iterator[Finding]:
    """config.toml and the environment, against what the running broker was started with."""
    if facts.settings_problem:
        yield error("settings", facts.settings_problem, facts.settings_hint)
        return
    chosen = [
        f"{name} = {entry['value']} ({entry['source']})"
        for name, entry in facts.settings.items()
        if entry["source"] != "default"
    ]
    yield ok("settings", "; ".join(chosen) or "all default")
    running = facts.status.get("settings") or {}
    other = [
        name
        for name, entry in facts.settings.items()
        if name in running and running[name].get("value") != entry["value"]
    ]
    if other:
        yield info(
            "settings",
            f"the running broker was started with other values for: {', '.join(other)}",
            f"put them into {facts.settings_path or 'config.toml'}, then `mempalace-broker restart`",
        )


def shared(facts: Facts) -> Iterator[Finding]:
    """broker.toml in the state root: what does not count there, and where it belongs."""
    found = facts.shared_settings
    if found.problem:
        yield warn("shared settings", found.problem, f"correct or remove {found.path}")
    for name in found.misplaced[:_MOST]:
        yield warn(
            "shared settings",
            f"{name} in {found.path} does not count: everyone who has that folder mounted can write it",
            f"move it to {facts.settings_path or 'the config.toml of a user with a home'}",
        )
    if len(found.misplaced) > _MOST:
        yield warn(
            "shared settings", f"and {len(found.misplaced) - _MOST} more in {found.path}", "move or remove them, too"
        )


def private(facts: Facts) -> Iterator[Finding]:
    """The folders that only the user can write to."""
    if facts.private_problem:
        yield warn(
            "private folder",
            f"{facts.private_problem}: default settings hold, and no log, cached answers or exit reasons are kept",
            "name a folder of your own in MEMPALACE_BROKER_PRIVATE, for every agent alike",
        )
    else:
        yield ok("private folder", f"log and exit reason in {facts.state_folder}")
