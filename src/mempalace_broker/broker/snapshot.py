"""The snapshot that `status` shows, taken by the broker alone, whatever the engine does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..system import kernel
from ..system.snapshot_names import FOLDER, made_at, snapshot_names
from .machine.failure_texts import engine_state
from .machine.lender import LENT
from .machine.parking import ParkState
from .machine.scheduler import LANES
from .machine.supervisor import EngineState

if TYPE_CHECKING:
    from ..protocol.palace import PalaceIdentity
    from ..protocol.record import DiscoveryRecord
    from ..protocol.tools import Lane
    from ..settings import BrokerSettings
    from ..system.paths import StateFiles
    from .backups import Backups
    from .engine_host import EngineHost
    from .lease_keeper import LeaseKeeper
    from .listeners import Listeners
    from .machine.protocol import BrokerProtocol
    from .machine.session import Session
    from .observer import Observer
    from .warnings import Warnings

_TAIL_LINES = 10  # of stderr
_CALLS = 8  # shown of one lane
_ASK_THE_HOST = "on the broker's machine: mempalace-broker status"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The parts of the broker that `status` shows. `started`: monotonic seconds."""

    identity: PalaceIdentity
    files: StateFiles
    settings: BrokerSettings
    protocol: BrokerProtocol
    engine: EngineHost
    lease: LeaseKeeper
    listeners: Listeners
    observer: Observer
    backups: Backups
    record: DiscoveryRecord
    warnings: Warnings
    started: float

    def take(self, now: float, *, brief: bool = False) -> dict[str, Any]:
        """The answer to broker/status; times in seconds, sizes in KiB. docs/status.md describes it.

        Args:
            brief: what a guest may know: nothing of other sessions, of the host's files, programs and settings.
        """
        return self._brief(now) if brief else self._full(now)

    def _brief(self, now: float) -> dict[str, Any]:
        state, since = self._engine_state()
        return {
            "brief": True,
            "broker": {
                "version": __version__,
                "pid": os.getpid(),
                "state": self.protocol.state,
                "started_at": self.record.started_at,
                "uptime_s": round(now - self.started, 1),
                "record": self.record.record,
            },
            "palace": {"path": self.identity.path, "graph": self.identity.graph, "by": self.identity.by},
            "engine": {
                "state": state,
                "since_s": round(now - since, 1),
                "version": self.protocol.dispatcher.report.version or None,
                "restarts": self.protocol.dispatcher.supervisor.restarts,
            },
            "lanes": {lane: {"running": [], "queued": self._queued(lane)} for lane in LANES},
            "degraded": [{"what": what, "hint": _ASK_THE_HOST} for what in self._ailing(now)],
        }

    def _full(self, now: float) -> dict[str, Any]:
        return {
            "broker": self._broker(now),
            "lease": self.lease.facts(),
            "palace": {**self.identity.as_json(), "state_root": self.files.root},
            "engine": self._engine(now),
            "lanes": {lane: self._lane(lane, now) for lane in LANES},
            "sessions": [
                self._session(session, now)
                for session in self.protocol.sessions.values()
                if session.greeted or session.counted
            ],
            "traffic": self.protocol.dispatcher.traffic.as_json(now, self.started),
            "errors": list(self.observer.errors),
            "snapshots": self._snapshots(),
            "counters": {**self.protocol.counters, **self.protocol.dispatcher.counters},
            "settings": self.settings.as_json(),
            "backup": self.backups.as_json(),
            "degraded": self._degraded(now),
            "endpoints": self.record.endpoints,
            "tcp": self.listeners.tcp.as_json(),
            "http": self.listeners.http.as_json(),
        }

    def _broker(self, now: float) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "state": self.protocol.state,
            "started_at": self.record.started_at,
            "started_by": self.record.started_by,
            "uptime_s": round(now - self.started, 1),
            "record": self.record.record,
            "epoch": self.record.epoch,
            "rss_kb": rss_kb(os.getpid()),
        }

    def _engine(self, now: float) -> dict[str, Any]:
        supervisor, report = self.protocol.dispatcher.supervisor, self.protocol.dispatcher.report
        command, process = self.engine.command, self.engine.process
        state, since = self._engine_state()
        return {
            "state": state,
            "since_s": round(now - since, 1),
            "waits_for": self.protocol.dispatcher.holder or None,
            "pid": supervisor.pid or None,
            "version": report.version or (command.version if command else None),
            "python": report.python,
            "interpreter": command.interpreter if command else None,
            "source": command.source if command else None,
            "generation": supervisor.generation,
            "restarts": supervisor.restarts,
            "drawers": report.drawers,
            "backend": report.backend,
            "storage": report.storage,
            "embedder": report.embedder,
            "graph": report.graph,
            "tuneups": report.tuneups or [],
            "write_limits": report.write_limits,
            "reason": supervisor.reason or None,
            "hint": supervisor.hint or None,
            "stderr_tail": list(process.tail)[-_TAIL_LINES:] if process else [],
            "rss_kb": rss_kb(supervisor.pid) if supervisor.pid else None,
        }

    def _engine_state(self) -> tuple[str, float]:
        """The state of the engine, and since when: a ready one may be parked."""
        supervisor, parking = self.protocol.dispatcher.supervisor, self.protocol.dispatcher.parking
        if self.protocol.dispatcher.lent and not supervisor.alive:
            return LENT, supervisor.since
        if supervisor.state == EngineState.READY and parking.state != ParkState.OPEN:
            return parking.state, parking.since
        return supervisor.state, supervisor.since

    def _lane(self, lane: Lane, now: float) -> dict[str, Any]:
        scheduler = self.protocol.dispatcher.scheduler
        running = [call for call in scheduler.running.values() if call.rule.lane == lane]
        shown = [
            {
                "tool": call.tool,
                "session": self._session_name(call.conn),
                "for_s": round(now - call.started, 2),
                "file": call.file or None,
                "files": call.files or None,
            }
            for call in running[:_CALLS]
        ]
        return {"running": shown, "queued": self._queued(lane)}

    def _queued(self, lane: Lane) -> int:
        return self.protocol.dispatcher.scheduler.queues[lane].live

    def _ailing(self, now: float) -> list[str]:
        """Which parts are degraded, without the words, which name files of the host."""
        engine = self.protocol.dispatcher.supervisor
        return (
            [f"the engine is {engine.state}"]
            if engine.hopeless
            else ["the broker is degraded"]
            if self._degraded(now)
            else []
        )

    def _snapshots(self) -> dict[str, Any]:
        """Return the number in their usual folder, and when the newest was made, by the schedule or by hand."""
        folder = self.files.private.folder(FOLDER).path
        names = snapshot_names(folder) if folder else []
        scheduled = (self.backups.as_json() or {}).get("made_at") or 0  # into another folder, perhaps
        newest = max(made_at(names[-1]) if names else 0, scheduled)
        return {"folder": folder or None, "count": len(names), "newest_at": newest or None}

    def _session_name(self, conn: int) -> str:
        session = self.protocol.sessions.get(conn)
        return session.public if session is not None else "(gone)"

    def _session(self, session: Session, now: float) -> dict[str, Any]:
        return {
            "id": session.public,
            "agent": session.agent or None,
            "client": session.client,
            "via": self.listeners.via(session.conn),
            "origin": session.origin,
            "pid": session.pid,
            "since_s": round(now - session.opened, 1),
            "in_flight": session.open_calls,
            "answered": session.answered,
        }

    def _degraded(self, now: float) -> list[dict[str, str]]:
        """All that is not as it should be, each with its hint."""
        dispatcher = self.protocol.dispatcher
        supervisor = dispatcher.supervisor
        out = list(dispatcher.report.degraded)
        lent = dispatcher.lent and not supervisor.hopeless
        rests = lent or self.protocol.lifecycle.engine_rests
        if supervisor.hopeless or (supervisor.state != EngineState.READY and supervisor.reason and not rests):
            hint = supervisor.hint if supervisor.hopeless else "it is under way"
            out.append({"what": engine_state(supervisor, now), "hint": hint})
        if dispatcher.holder:
            what = f"the engine waits for another process that works on the palace, {dispatcher.holder}"
            out.append({"what": what, "hint": "let that process finish, or end it"})
        parts = (self.backups, self.listeners.tcp, self.listeners.http)
        return [*out, *self.warnings.entries, *(entry for part in parts for entry in part.degraded())]


def rss_kb(pid: int) -> int | None:
    """Resident memory of a process in KiB; None where it can't be told."""
    if kernel.MACOS:
        return _rss_on_a_mac(pid)
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    except (OSError, ValueError, IndexError):
        return None


def _rss_on_a_mac(pid: int) -> int | None:
    import psutil  # late: elsewhere no broker needs it

    try:
        return int(psutil.Process(pid).memory_info().rss) // 1024
    except (psutil.Error, OSError):
        return None
