"""Findings about who owns the palace: lock against connection against answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..route.machine.election import CONNECT_DENIED
from .findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts


def owner(facts: Facts) -> Iterator[Finding]:
    """The owner lock against the answer of a broker."""
    owner, said = facts.owner, facts.reply
    if said.answer is not None and facts.locality.foreign:
        broker = facts.status.get("broker", {})
        yield Finding(
            Severity.OK, "broker", f"pid {broker.get('pid')} answers over {said.path}, state {broker.get('state')}"
        )
        return
    who = f"pid {owner.pid} ({owner.command or 'unknown command'})" if owner.pid else "an unknown process"
    if said.answer is not None:
        broker = facts.status.get("broker", {})
        yield Finding(
            Severity.OK, "broker", f"pid {broker.get('pid')} answers on {said.path}, state {broker.get('state')}"
        )
        if owner.held is False:
            yield Finding(
                Severity.ERROR,
                "owner lock",
                f"a broker answers, but no process holds {owner.path}: the file was replaced or removed",
                "mempalace-broker restart; and don't let anything remove lock files",
            )
        elif owner.pid != broker.get("pid"):
            yield Finding(
                Severity.WARN,
                "owner lock",
                f"held by {who}, but pid {broker.get('pid')} answers: another pid namespace, or two brokers",
                "compare with `mempalace-broker status` where the broker runs",
            )
        else:
            yield Finding(Severity.OK, "owner lock", f"held by the broker, pid {owner.pid}")
        return
    yield from _silent_owner(facts, who)


def _silent_owner(facts: Facts, who: str) -> Iterator[Finding]:
    owner, said = facts.owner, facts.reply
    if owner.held is None:
        yield Finding(
            Severity.ERROR, "owner lock", f"{owner.path} can't be probed", "look at its permissions and its mount"
        )
    elif said.connect == CONNECT_DENIED:
        yield Finding(Severity.ERROR, "broker", f"no access: {said.why}", "run this as the owner of the palace")
    elif said.accepted:
        yield Finding(
            Severity.ERROR,
            "broker",
            f"{who} owns the palace, accepts connections and does not answer: {said.why}",
            "wait a moment; if it persists: mempalace-broker stop --now",
        )
    elif facts.locality.foreign:
        bridged = facts.plan is not None and bool(facts.plan.ssh or facts.plan.tcp)
        hint = "see the findings above, and docs/topologies.md"
        yield Finding(
            Severity.ERROR if bridged else Severity.INFO,
            "broker",
            f"not running here, or out of reach: {said.why}",
            hint,
        )
    elif owner.held:
        yield Finding(
            Severity.ERROR,
            "broker",
            f"{who} owns the palace, but does not listen ({said.why}): it is starting, leaving, or hanging",
            "wait a moment; if it persists: mempalace-broker stop --now",
        )
    else:
        yield Finding(Severity.INFO, "broker", "not running; the first mp-shim starts it", "")


def engine_lock(facts: Facts) -> Iterator[Finding]:
    """Whether an engine outlives its broker."""
    lock = facts.engine_lock
    running = facts.reply.answer is not None or bool(facts.owner.held)
    if lock.held and not running:
        yield Finding(
            Severity.WARN,
            "engine lock",
            f"an engine without a broker holds it, pid {lock.pid or 'unknown'} ({lock.command or '?'}); "
            "it finishes its work and ends; a new broker waits for it",
            f"wait; if it stays: kill {lock.pid}" if lock.pid else "see who holds it: lsof " + lock.path,
        )
    elif lock.held:
        yield Finding(Severity.OK, "engine lock", f"held by the engine, pid {lock.pid}")
    elif lock.held is None:
        yield Finding(
            Severity.ERROR, "engine lock", f"{lock.path} can't be probed", "look at its permissions and its mount"
        )
