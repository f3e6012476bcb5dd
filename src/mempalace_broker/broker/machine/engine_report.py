"""What the engine reports about itself while it starts: in its frames hello, ready and fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...protocol.engine_frames import IMPORT_FAILED, NO_MEMPALACE, SWAPPED_STORE, WRITE_LOCK_HELD

if TYPE_CHECKING:
    from collections.abc import Mapping

_UPGRADE_FAULTS = frozenset({NO_MEMPALACE, IMPORT_FAILED})  # seen while the package is being replaced
_PASSING_FAULTS = frozenset({WRITE_LOCK_HELD, SWAPPED_STORE})


@dataclass(slots=True)
class EngineReport:
    """The latest reports; None where the engine has not said. Shown by `broker/status`.

    Attributes:
        degraded: problems, each with `what` and `hint`.
        storage: where the drawers are if not in Chroma, see `engine/storage.py`.
        fingerprint: of its search configuration, as mempalace computes it.
        write_limits: "" where the kernel keeps its writes in mempalace's folders, else why it doesn't.
        was_ready: an engine of this broker was ready once.
    """

    version: str | None = None
    python: str | None = None
    graph: str | None = None
    backend: str | None = None
    storage: Mapping[str, Any] | None = None
    embedder: str | None = None
    fingerprint: str | None = None
    tuneups: list[Any] = field(default_factory=list)
    drawers: int | None = None
    degraded: list[dict[str, str]] = field(default_factory=list)
    write_limits: str | None = None
    was_ready: bool = False

    def hello(self, told: Mapping[str, Any]) -> None:
        """mempalace is imported."""
        self.version, self.python, self.graph = (told.get(name) for name in ("version", "python", "graph"))
        self.backend, storage = told.get("backend"), told.get("storage")
        self.storage = storage if isinstance(storage, dict) else None
        self.embedder = told.get("embedder")
        fingerprint = told.get("fingerprint")
        self.fingerprint = fingerprint if isinstance(fingerprint, str) else None
        self.tuneups, self.drawers, self.write_limits = [], None, None

    def ready(self, told: Mapping[str, Any]) -> None:
        """Warm-up is over."""
        self.tuneups = told.get("tuneups", [])
        self.drawers = told.get("drawers")
        self.write_limits = told.get("write_limits")
        self.now_degraded(told)
        self.was_ready = True

    def now_degraded(self, told: Mapping[str, Any]) -> None:
        """Take over a changed list of problems."""
        self.degraded = [
            {"what": str(entry.get("what", "")), "hint": str(entry.get("hint", ""))}
            for entry in told.get("degraded", ())
            if isinstance(entry, dict)
        ]

    def fault(self, told: Mapping[str, Any]) -> tuple[str, str, bool]:
        """(reason, hint, permanent) of a fail frame: whether only a person can change it."""
        kind = str(told.get("reason", "unknown"))
        passing = kind in _PASSING_FAULTS or (self.was_ready and kind in _UPGRADE_FAULTS)
        return str(told.get("message") or kind).rstrip("."), str(told.get("hint", "")), not passing
