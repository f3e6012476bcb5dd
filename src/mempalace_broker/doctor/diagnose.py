"""From facts to findings. Judging is pure; gather.py does the looking.

findings = diagnose(context)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import access, backup, database, discovery, engine, lease, locality, others, owner, palace, settings
from .findings import error
from .gather import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..system.paths import Context
    from .facts import Facts
    from .findings import Finding

# in the order in which a person would look
_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    palace.palace,
    palace.directories,
    access.stores,
    access.shared_files,
    access.container,
    locality.kernel,
    locality.routes,
    access.control,
    access.keys,
    access.listener,
    owner.owner,
    discovery.record,
    discovery.socket,
    owner.engine_lock,
    others.open_files,
    others.in_process,
    others.upstream_lock,
    others.hooks,
    others.proxy,
    others.upstream_processes,
    others.leftovers,
    engine.engine,
    database.storage,
    engine.model,
    settings.settings,
    settings.shared,
    settings.private,
    backup.backup,
    engine.versions,
    engine.degraded,
    engine.history,
)


def diagnose(context: Context) -> list[Finding]:
    """Look and judge. Raises UsageError where $MEMPALACE_BROKER names no socket."""
    return [*judge(gather(context)), *lease.leases(context.files.leases, context.files.owner_lock)]


def judge(facts: Facts) -> list[Finding]:
    """All findings that follow from the facts. A guest may have answered in the broker's place, in any form."""
    found: list[Finding] = []
    failed: list[str] = []
    for check in _CHECKS:
        try:
            found += check(facts)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            if facts.reply.answer is None:
                raise
            failed.append(check.__name__)
    if failed:
        what = f"its status does not have the form of a broker's, so these checks are incomplete: {', '.join(failed)}"
        found.append(error("broker", what, f"see what listens at {facts.reply.path}, then mempalace-broker restart"))
    return found
