"""`doctor`: from facts to findings, each with its hint. Judging is pure; facts.py does the looking.

rows = diagnose(context)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.record import BadRecord
from ..route.machine.election import CONNECT_DENIED, CONNECT_OK, RECORD_ABSENT, RECORD_FOREIGN
from ..system.paths import MAX_SOCKET_PATH
from ..system.process_ids import DEAD
from . import engine, others
from . import locality as whereabouts
from .facts import Facts, gather
from .findings import ERROR, INFO, OK, WARN, Row
from .lease import leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..system.context import Context
    from .facts import Place

LOW_DISK, NO_DISK = 1 << 30, 50 << 20


def diagnose(context: Context) -> list[Row]:
    """Look and judge. Raises UsageError where $MEMPALACE_BROKER names no socket."""
    return [*judge(gather(context)), *leases(context.files.leases, context.files.owner_lock)]


def judge(facts: Facts) -> list[Row]:
    """All findings, in the order in which a person would look."""
    return [row for part in _PARTS for row in part(facts)]


# --- the place


def _palace(facts: Facts) -> Iterator[Row]:
    chosen = f"{facts.identity.path} (by {facts.identity.by}), knowledge graph {facts.identity.graph}"
    if not facts.palace.entry.kind:
        yield Row(INFO, "palace", f"{chosen}; not there yet, the first write creates it")
    elif not facts.has_palace:
        yield Row(INFO, "palace", f"{chosen}; empty so far")
    else:
        yield Row(OK, "palace", chosen)
    for name, value in facts.variables.items():
        yield Row(
            INFO,
            "environment",
            f"{name}={value}: agents that get another environment (Codex, the MCP SDKs) do not see it",
            "name the palace in mempalace's config.json, or by --palace in every agent's config",
        )


def _place(facts: Facts) -> Iterator[Row]:
    places = [("palace directory", facts.palace)]
    if facts.files.root != facts.identity.path:
        places.append(("state root", facts.root))
    for name, place in places:
        yield from _directory(name, place, facts.uid)
        yield from _mount(name, place, facts)
        yield from _disk(name, place)


def _directory(name: str, place: Place, uid: int) -> Iterator[Row]:
    entry = place.entry
    if not entry.kind:
        return
    if entry.kind != "dir":
        yield Row(ERROR, name, f"{entry.path} is a {entry.kind}, not a directory", "give another palace (--palace)")
    elif entry.uid not in (uid, 0) or not entry.writable:
        yield Row(
            ERROR,
            name,
            f"{entry.path} (uid {entry.uid}) is not yours (uid {uid}), or not writable",
            f"sudo chown -R {uid} {entry.path}, or run agents as its owner",
        )
    elif entry.mode & 0o022:
        yield Row(
            WARN, name, f"{entry.path} can be written by others (mode {entry.mode:o})", f"chmod go-w {entry.path}"
        )
    else:
        yield Row(OK, name, f"{entry.path} is yours (mode {entry.mode:o})")


def _mount(name: str, place: Place, facts: Facts) -> Iterator[Row]:
    kind = place.filesystem or "unknown type"
    if facts.platform == "darwin":
        yield Row(INFO, f"{name}: filesystem", "this system does not tell; locks are good on a Mac's own disks")
    elif place.local:
        yield Row(OK, f"{name}: filesystem", f"{kind}, local to this kernel: locks and sockets mean something")
    else:
        yield Row(INFO, f"{name}: filesystem", f"{kind}: another kernel may have it mounted too, and locks lie here")


def _disk(name: str, place: Place) -> Iterator[Row]:
    if place.free is None:
        return
    amount = f"{place.free / (1 << 30):.1f} GB free"
    if place.free < NO_DISK:
        yield Row(ERROR, f"{name}: disk", f"{amount}: writes will fail", "free some space")
    elif place.free < LOW_DISK:
        yield Row(WARN, f"{name}: disk", f"{amount}: the index needs room to be rewritten", "free some space")
    else:
        yield Row(OK, f"{name}: disk", amount)


# --- the owner: lock against record against connect against answer


def _owner(facts: Facts) -> Iterator[Row]:
    owner, said = facts.owner, facts.reply
    if said.answer is not None and facts.locality.foreign:
        broker = facts.status.get("broker", {})
        yield Row(OK, "broker", f"pid {broker.get('pid')} answers over {said.path}, state {broker.get('state')}")
        return
    who = f"pid {owner.pid} ({owner.command or 'unknown command'})" if owner.pid else "somebody who left no name"
    if said.answer is not None:
        broker = facts.status.get("broker", {})
        yield Row(OK, "broker", f"pid {broker.get('pid')} answers on {said.path}, state {broker.get('state')}")
        if owner.held is False:
            yield Row(
                ERROR,
                "owner lock",
                f"a broker answers but nobody holds {owner.path}: somebody replaced or removed the file",
                "mempalace-broker restart; and let nothing remove lock files",
            )
        elif owner.pid != broker.get("pid"):
            yield Row(
                WARN,
                "owner lock",
                f"held by {who}, but pid {broker.get('pid')} answers: a pid namespace between us, or two brokers",
                "compare with `mempalace-broker status` where the broker runs",
            )
        else:
            yield Row(OK, "owner lock", f"held by the broker, pid {owner.pid}")
        return
    yield from _silent_owner(facts, who)


def _silent_owner(facts: Facts, who: str) -> Iterator[Row]:
    owner, said = facts.owner, facts.reply
    if owner.held is None:
        yield Row(ERROR, "owner lock", f"{owner.path} can't be probed", "look at its permissions and its mount")
    elif said.connect == CONNECT_DENIED:
        yield Row(ERROR, "broker", f"no access: {said.why}", "run this as the owner of the palace")
    elif said.accepted:
        yield Row(
            ERROR,
            "broker",
            f"{who} owns the palace, accepts connections and does not answer: {said.why}",
            "wait a moment; if it goes on: mempalace-broker stop --now",
        )
    elif facts.locality.foreign:
        bridged = facts.plan is not None and bool(facts.plan.ssh or facts.plan.tcp)
        hint = "see the rows above, and docs/topologies.md"
        yield Row(ERROR if bridged else INFO, "broker", f"not running here, or out of reach: {said.why}", hint)
    elif owner.held:
        yield Row(
            ERROR,
            "broker",
            f"{who} owns the palace, but nobody listens ({said.why}): it starts, leaves, or hangs",
            "wait a moment; if it goes on: mempalace-broker stop --now",
        )
    else:
        yield Row(INFO, "broker", "not running; the first mp-shim starts it", "")


def _record(facts: Facts) -> Iterator[Row]:
    record, running = facts.record, facts.reply.answer is not None
    path = facts.files.record
    if isinstance(record, BadRecord):
        if running:
            yield Row(WARN, "record", f"{record.reason} ({path}), though a broker runs", "it writes it again by itself")
        elif facts.record_origin != RECORD_ABSENT:
            yield Row(WARN, "record", f"{record.reason} ({path})", "none needed: the next broker replaces it")
        return
    own = facts.status.get("broker", {}).get("record")
    if running and own == record.record:
        yield Row(OK, "record", f"{path} is the running broker's")
    elif running:
        yield Row(WARN, "record", f"{path} is not the one of the broker that answers", "mempalace-broker restart")
    elif facts.record_origin == RECORD_FOREIGN:
        yield Row(
            ERROR,
            "record",
            f"{path} was written on another kernel (host {record.host}), whose broker may be alive",
            f"stop that broker there; if there is none any more, remove {path}",
        )
    elif facts.record_process == DEAD and not facts.owner.held:
        yield Row(INFO, "record", f"{path} is of a broker that was killed (pid {record.pid})")
    if facts.record_entry.mode & 0o077:
        yield Row(WARN, "record", f"{path} can be read by others", f"chmod 600 {path}")


def _socket(facts: Facts) -> Iterator[Row]:
    entry, files = facts.socket, facts.files
    size = f"{facts.socket_bytes} of at most {MAX_SOCKET_PATH} bytes"
    moved = not entry.path.startswith(files.root.rstrip("/") + "/")
    place = f"; the state root's path is too long for a socket, so it is in {entry.path}" if moved else ""
    if not entry.kind:
        if facts.reply.connect == CONNECT_OK and facts.reply.path == entry.path:
            yield Row(WARN, "socket", f"{entry.path} vanished just now", "the broker binds it again by itself")
        else:
            yield Row(INFO, "socket", f"{entry.path} is not there ({size}){place}")
    elif entry.kind != "socket":
        yield Row(ERROR, "socket", f"{entry.path} is a {entry.kind}", "none needed: the next broker replaces it")
    elif facts.uid not in (entry.uid, 0):
        yield Row(ERROR, "socket", f"{entry.path} belongs to uid {entry.uid}", "run agents as the palace's owner")
    elif entry.mode & 0o077:
        yield Row(WARN, "socket", f"{entry.path} is open to others (mode {entry.mode:o})", f"chmod 600 {entry.path}")
    else:
        stale = "" if facts.reply.accepted else ", left behind by a broker that was killed"
        yield Row(INFO if stale else OK, "socket", f"{entry.path} ({size}){place}{stale}")


def _engine_lock(facts: Facts) -> Iterator[Row]:
    lock = facts.engine_lock
    running = facts.reply.answer is not None or bool(facts.owner.held)
    if lock.held and not running:
        yield Row(
            WARN,
            "engine lock",
            f"an engine without a broker holds it: pid {lock.pid or 'unknown'} ({lock.command or '?'}); "
            "it finishes its work and leaves, a new broker waits for it",
            f"none for a while; then: kill {lock.pid}" if lock.pid else "see who holds it: lsof " + lock.path,
        )
    elif lock.held:
        yield Row(OK, "engine lock", f"held by the engine, pid {lock.pid}")
    elif lock.held is None:
        yield Row(ERROR, "engine lock", f"{lock.path} can't be probed", "look at its permissions and its mount")


_PARTS: tuple[Callable[[Facts], Iterator[Row]], ...] = (
    _palace,
    _place,
    whereabouts.kernel,
    whereabouts.routes,
    _owner,
    _record,
    _socket,
    _engine_lock,
    others.openers,
    others.lease,
    others.upstream,
    others.leftovers,
    engine.engine,
    engine.model,
    engine.settings,
    engine.versions,
    engine.degraded,
    engine.history,
)
