"""Findings about who owns the palace: lock against connection against answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..route.machine.election import CONNECT_DENIED
from .findings import error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts, LockFacts
    from .findings import Finding

UNPROBED = "look at its permissions and its mount; if it is not a regular file, no broker made it: remove it"


def owner(facts: Facts) -> Iterator[Finding]:
    """The owner lock against the answer of a broker."""
    reply, foreign = facts.reply, facts.locality.foreign or bool(facts.remote)
    if reply.answer is None:
        yield _silent_owner(facts)
        return
    broker = facts.status.get("broker", {})
    pid = broker.get("pid")
    starter = broker.get("started_by") or "hand"
    how = f"{'over' if foreign else 'on'} {reply.path}, state {broker.get('state')}, started by {starter}"
    yield ok("broker", f"pid {pid} answers {how}")
    if not foreign:
        yield _answering_owner(facts.owner, pid)
    if facts.platform == "darwin" and not foreign:
        yield info(
            "privacy",
            f"macOS lets it into Documents, Desktop and Downloads if it let {starter} in, for all agents alike",
            'where `mine` gets "Operation not permitted": mempalace-broker restart in Terminal, and allow it there',
        )


def _answering_owner(lock: LockFacts, pid: object) -> Finding:
    if lock.held is False:
        return error(
            "owner lock",
            f"a broker answers, but no process holds {lock.path}: the file was replaced or removed",
            "mempalace-broker restart; and don't let anything remove lock files",
        )
    if lock.pid != pid:
        return warn(
            "owner lock",
            f"held by {_holder(lock)}, but pid {pid} answers: another pid namespace, or two brokers",
            "compare with `mempalace-broker status` where the broker runs",
        )
    return ok("owner lock", f"held by the broker, pid {pid}")


def _silent_owner(facts: Facts) -> Finding:
    lock, reply = facts.owner, facts.reply
    if facts.remote:
        return error("broker", f"{facts.remote}: {reply.why}", "mempalace-broker ensure, which says what helps")
    stop_it = "wait a moment; if it persists: mempalace-broker stop --now"
    if lock.held is None:
        return error("owner lock", f"{lock.path} can't be probed", UNPROBED)
    if reply.connect == CONNECT_DENIED:
        return error("broker", f"no access: {reply.why}", "run this as the owner of the palace")
    if reply.accepted:
        silent = f"{_holder(lock)} owns the palace, accepts connections and does not answer: {reply.why}"
        return error("broker", silent, stop_it)
    if facts.locality.foreign:
        bridged = facts.plan is not None and bool(facts.plan.ssh or facts.plan.tcp)
        hint = "see the findings above, and docs/topologies.md"
        return (error if bridged else info)("broker", f"not running here, or out of reach: {reply.why}", hint)
    if lock.held:
        deaf = f"{_holder(lock)} owns the palace, but does not listen ({reply.why})"
        return error("broker", f"{deaf}: it is starting, leaving, or hanging", stop_it)
    return info("broker", "not running; the first mp-shim starts it")


def _holder(lock: LockFacts) -> str:
    return f"pid {lock.pid} ({lock.command or 'unknown command'})" if lock.pid else "an unknown process"


def engine_lock(facts: Facts) -> Iterator[Finding]:
    """Whether an engine outlives its broker."""
    lock = facts.engine_lock
    running = facts.reply.answer is not None or bool(facts.owner.held)
    if facts.lent_to:
        yield info(
            "engine lock",
            f"held by a command that has the palace for itself, {facts.lent_to}; calls wait for its end",
            "should it hang, end it" + (f": kill {lock.pid}" if lock.pid else ""),
        )
    elif lock.held and not running:
        yield warn(
            "engine lock",
            f"an engine without a broker holds it, pid {lock.pid or 'unknown'} ({lock.command or '?'}); "
            "it finishes its work and ends; a new broker waits for it",
            f"wait; if it stays: kill {lock.pid}" if lock.pid else "see who holds it: lsof " + lock.path,
        )
    elif lock.held:
        yield ok("engine lock", f"held by the engine, pid {lock.pid}")
    elif lock.held is None:
        yield error("engine lock", f"{lock.path} can't be probed", UNPROBED)
