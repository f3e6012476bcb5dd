"""Findings about what clients find the broker by: its record and its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.record import BadRecord
from ..route.machine.election import CONNECT_OK, RECORD_ABSENT, RECORD_FOREIGN
from ..system.process_ids import DEAD
from .findings import Finding, Severity, error, info, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts


def record(facts: Facts) -> Iterator[Finding]:
    """The discovery record against the broker that answers."""
    if facts.remote:
        return
    record, running = facts.record, facts.reply.answer is not None
    path = facts.files.record
    if isinstance(record, BadRecord):
        if running:
            yield warn(
                "record",
                f"{record.reason} ({path}), though a broker runs",
                "it writes it again by itself",
            )
        elif facts.record_origin != RECORD_ABSENT:
            yield warn("record", f"{record.reason} ({path})", "none needed: the next broker replaces it")
        return
    own = facts.status.get("broker", {}).get("record")
    if running and own == record.record:
        yield ok("record", f"{path} is the running broker's")
    elif running:
        yield warn("record", f"{path} is not the one of the broker that answers", "mempalace-broker restart")
    elif facts.record_origin == RECORD_FOREIGN:
        yield error(
            "record",
            f"{path} was written on another kernel (host {record.host}), whose broker may be alive",
            f"stop that broker there; if it no longer exists, remove {path}",
        )
    elif facts.record_process == DEAD and not facts.owner.held:
        yield info("record", f"{path} is of a broker that was killed (pid {record.pid})")
    if facts.record_entry.mode & 0o077:
        yield warn("record", f"{path} can be read by others", f"chmod 600 {path}")


def socket(facts: Facts) -> Iterator[Finding]:
    """The socket's name in the filesystem."""
    if facts.remote:
        return
    entry, files = facts.socket, facts.files
    moved = not entry.path.startswith(files.root.rstrip("/") + "/")
    place = f"; the state root's path is too long for a socket, so it is in {entry.path}" if moved else ""
    if not entry.kind:
        if facts.reply.connect == CONNECT_OK and facts.reply.path == entry.path:
            yield warn("socket", f"{entry.path} vanished just now", "none needed: the broker binds it again")
        else:
            yield info("socket", f"{entry.path} is not there{place}")
    elif entry.kind != "socket":
        yield error("socket", f"{entry.path} is a {entry.kind}", "none needed: the next broker replaces it")
    elif facts.uid not in (entry.uid, 0):
        yield error("socket", f"{entry.path} belongs to uid {entry.uid}", "run agents as the palace's owner")
    elif entry.mode & 0o077:
        yield warn("socket", f"{entry.path} is open to others (mode {entry.mode:o})", f"chmod 600 {entry.path}")
    else:
        stale = "" if facts.reply.accepted else ", left behind by a broker that was killed"
        yield Finding(Severity.INFO if stale else Severity.OK, "socket", f"{entry.path}{place}{stale}")
