"""The metrics of the broker for Prometheus, made from the status that `status --json` prints.

Names and units follow Prometheus' own rules: seconds, bytes, `_total` for counters.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from ..machine.lender import LENT
from ..machine.parking import ParkState
from ..machine.supervisor import EngineState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

_PREFIX = "mempalace_broker"
_STATES = tuple(dict.fromkeys([*EngineState, *(state for state in ParkState if state is not ParkState.OPEN), LENT]))
_COUNTERS = {
    "cancelled": "Calls that their clients cancelled.",
    "timeouts": "Calls that waited or ran too long.",
    "unknown_outcomes": "Writes whose outcome is unknown.",
    "replayed": "Calls that ran again after the death of an engine.",
    "sessions": "Sessions since the start.",
}


def exposition(status: dict[str, Any]) -> tuple[bytes, str]:
    """Return the metrics as text, and the content type of that text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(status))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Snapshot(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as the library asks for them."""
        yield from _broker(self._status)
        yield from _engine(self._status["engine"])
        yield from _lanes(self._status)
        yield from _calls(self._status)
        yield from _clients(self._status)


def _gauge(name: str, text: str, value: float | None) -> Iterator[Metric]:
    """Yield a single value, unless it is unknown."""
    if value is not None:
        yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value)


def _bytes(kib: int | None) -> float | None:
    return None if kib is None else kib * 1024.0


def _broker(status: dict[str, Any]) -> Iterator[Metric]:
    broker, snapshots = status["broker"], status["snapshots"]
    facts = {
        "version": broker["version"],
        "engine_version": status["engine"]["version"] or "",
        "palace": status["palace"]["path"].encode("utf-8", "backslashreplace").decode(),  # a name may be any bytes
    }
    yield InfoMetricFamily(_PREFIX, "Versions, and the palace.", facts)
    yield from _gauge("start_time_seconds", "When the broker started, in seconds since 1970.", broker["started_at"])
    yield from _gauge("resident_memory_bytes", "Memory of the broker.", _bytes(broker["rss_kb"]))
    yield from _gauge("degraded", "Number of problems that status reports as degraded.", len(status["degraded"]))
    yield from _gauge("lease_epoch", "Epoch of the broker's lease on the palace.", broker["epoch"])
    yield from _gauge("snapshots", "Snapshots in their usual folder.", snapshots["count"])
    text = "When the newest snapshot was made, in seconds since 1970."
    yield from _gauge("snapshot_newest_time_seconds", text, snapshots["newest_at"])


def _engine(engine: dict[str, Any]) -> Iterator[Metric]:
    states = GaugeMetricFamily(f"{_PREFIX}_engine_state", "1 for the state that the engine is in.", labels=["state"])
    for state in _STATES:
        states.add_metric([state], state == engine["state"])
    yield states
    yield from _gauge("engine_resident_memory_bytes", "Memory of the engine.", _bytes(engine["rss_kb"]))
    yield from _gauge("engine_drawers", "Drawers as counted when the engine started.", engine["drawers"])
    yield CounterMetricFamily(f"{_PREFIX}_engine_restarts", "Engines that replaced another one.", engine["restarts"])


def _lanes(status: dict[str, Any]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(f"{_PREFIX}_calls_waiting", "Calls that are waiting for their turn.", labels=["lane"])
    running = GaugeMetricFamily(f"{_PREFIX}_calls_running", "Calls that are running.", labels=["lane"])
    for name, lane in status["lanes"].items():
        waiting.add_metric([name], lane["queued"])
        running.add_metric([name], len(lane["running"]))
    yield waiting
    yield running


def _calls(status: dict[str, Any]) -> Iterator[Metric]:
    traffic, counters = status["traffic"], status["counters"]
    calls = CounterMetricFamily(f"{_PREFIX}_calls", "Calls that were answered.", labels=["tool"])
    errors = CounterMetricFamily(f"{_PREFIX}_call_errors", "Calls that were answered with an error.", labels=["tool"])
    for tool, counts in traffic["tools"].items():
        calls.add_metric([tool], counts["calls"])
        errors.add_metric([tool], counts["errors"])
    yield calls
    yield errors
    for kind, text in (
        ("took", "From the arrival of a call to its answer."),
        ("waited", "From the arrival of a call until it ran."),
    ):
        family = HistogramMetricFamily(f"{_PREFIX}_call_{kind}_seconds", text, labels=["lane"])
        for name, lane in traffic["lanes"].items():
            bounds = [*map(str, traffic["bounds_s"]), "+Inf"]
            buckets = list(zip(bounds, accumulate(lane[kind]["counts"]), strict=True))
            family.add_metric([name], buckets, lane[kind]["sum_s"])
        yield family
    for kind, text in _COUNTERS.items():
        yield CounterMetricFamily(f"{_PREFIX}_{kind}", text, counters[kind])


def _clients(status: dict[str, Any]) -> Iterator[Metric]:
    sessions = GaugeMetricFamily(f"{_PREFIX}_sessions_open", "Sessions that are open.", labels=["via"])
    ways = [str(session["via"]).partition(" ")[0] for session in status["sessions"]]
    for way in ("unix", "tcp", "http"):
        sessions.add_metric([way], ways.count(way))
    yield sessions
    http = status["http"]
    if http is not None:
        yield CounterMetricFamily(f"{_PREFIX}_http_requests", "Requests for MCP over HTTP.", http["requests"])
        refused = CounterMetricFamily(f"{_PREFIX}_http_refused", "Requests that were refused.", labels=["status"])
        for number, count in http["refused"].items():
            refused.add_metric([number], count)
        yield refused
