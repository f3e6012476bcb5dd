"""What `status` shows: a snapshot made by the broker alone, whatever the engine does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from .. import __version__
from .machine.scheduler import LANES

if TYPE_CHECKING:
    from ..protocol.palace import PalaceIdentity
    from ..protocol.record import DiscoveryRecord
    from ..protocol.tools import Lane
    from ..settings import BrokerSettings
    from ..system.paths import StateFiles
    from .engine_host import EngineHost
    from .lease_keeper import LeaseKeeper
    from .listeners import Listeners
    from .machine.protocol import BrokerProtocol


class Serving(Protocol):
    """The broker as its snapshot needs it."""

    identity: PalaceIdentity
    files: StateFiles
    settings: BrokerSettings
    protocol: BrokerProtocol
    engine: EngineHost
    lease: LeaseKeeper
    listeners: Listeners
    record: DiscoveryRecord
    started: float
    troubles: list[dict[str, str]]

    def session_name(self, conn: int) -> str:
        """The session behind a connection."""


def snapshot(app: Serving, now: float) -> dict[str, Any]:
    """The answer to broker/status; times in seconds, sizes in KiB. docs/status.md describes it."""
    protocol, dispatcher = app.protocol, app.protocol.dispatcher
    record = app.record
    return {
        "broker": {
            "version": __version__,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "state": protocol.state,
            "started_at": record.started_at,
            "started_by": record.started_by,
            "uptime_s": round(now - app.started, 1),
            "record": record.record,
            "epoch": record.epoch,
            "rss_kb": rss_kb(os.getpid()),
        },
        "lease": app.lease.facts(),
        "palace": {**app.identity.as_json(), "state_root": app.files.root},
        "engine": _engine(app, now),
        "lanes": {lane: _lane(app, lane, now) for lane in LANES},
        "sessions": [
            {
                "id": session.name,
                "agent": session.agent or None,
                "client": session.client,
                "via": app.listeners.via(session.conn),
                "pid": session.pid,
                "since_s": round(now - session.opened, 1),
                "in_flight": session.open_calls,
                "answered": session.answered,
            }
            for session in protocol.sessions.values()
            if session.greeted or session.counted
        ],
        "counters": {**protocol.counters, **dispatcher.counters},
        "settings": app.settings.as_json(),
        "degraded": degraded(app),
        "endpoints": record.endpoints,
        "tcp": app.listeners.tcp.as_json(),
    }


def _engine(app: Serving, now: float) -> dict[str, Any]:
    supervisor = app.protocol.dispatcher.supervisor
    command, process = app.engine.command, app.engine.process
    told = app.protocol.dispatcher.engine
    return {
        "state": supervisor.state,
        "since_s": round(now - supervisor.since, 1),
        "pid": supervisor.pid or None,
        "version": told.get("version") or (command.version if command else None),
        "python": told.get("python"),
        "interpreter": command.interpreter if command else None,
        "source": command.source if command else None,
        "generation": supervisor.generation,
        "restarts": supervisor.restarts,
        "drawers": told.get("drawers"),
        "graph": told.get("graph"),
        "tuneups": told.get("tuneups") or [],
        "reason": supervisor.reason or None,
        "hint": supervisor.hint or None,
        "stderr_tail": list(process.tail)[-10:] if process else [],
        "rss_kb": rss_kb(supervisor.pid) if supervisor.pid else None,
    }


def _lane(app: Serving, lane: Lane, now: float) -> dict[str, Any]:
    scheduler = app.protocol.dispatcher.scheduler
    running = [call for call in scheduler.running.values() if call.rule.lane == lane]
    shown = [
        {"tool": c.tool, "session": app.session_name(c.conn), "for_s": round(now - c.started, 2)} for c in running[:8]
    ]
    return {"running": shown, "queued": len(scheduler.queues[lane])}


def degraded(app: Serving) -> list[dict[str, str]]:
    """Everything that is not as it should be, each with its hint (I9)."""
    out = list(app.protocol.dispatcher.degraded)
    supervisor = app.protocol.dispatcher.supervisor
    if supervisor.hopeless:
        out.append({"what": f"the engine is {supervisor.state}: {supervisor.reason}", "hint": supervisor.hint})
    elif supervisor.state != "ready" and supervisor.reason:
        out.append({"what": f"the engine is {supervisor.state}: {supervisor.reason}", "hint": "it is under way"})
    out.extend(app.troubles)
    out.extend(app.listeners.tcp.degraded())
    return out


def rss_kb(pid: int) -> int | None:
    """Resident memory of a process in KiB; None where the system doesn't tell cheaply."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    except (OSError, ValueError, IndexError):
        return None
