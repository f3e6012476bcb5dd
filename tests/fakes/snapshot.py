"""A snapshot as `broker/status` has it, of a broker with two agents and some calls."""

from __future__ import annotations

from typing import Any

from mempalace_broker.broker.machine.call import Call, call_of, rule_of
from mempalace_broker.broker.machine.traffic import Traffic
from mempalace_broker.protocol import jsonrpc as rpc

NOW = 1_795_000_000.0  # wall clock
_STARTED = 1000.0  # monotonic


def _call(tool: str, arrived: float) -> Call:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    made = call_of(
        rpc.parse(rpc.to_bytes(body)), b"", rule_of(tool, None), n=1, conn=1, flow=1, key="", run_s=60, now=arrived
    )
    made.started = arrived
    return made


def traffic() -> dict[str, Any]:
    made = Traffic()
    for second in range(100):
        arrived = _STARTED + second
        made.answered(_call("mempalace_search", arrived), arrived + 0.012, error=second == 50)
    return made.as_json(_STARTED + 100.0, _STARTED)


def session(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"{number:08x}",
        "agent": f"agent-{number}",
        "client": "mp-shim 0.1.0",
        "via": "unix",
        "origin": "host",
        "pid": 100 + number,
        "since_s": 60.0 * number,
        "in_flight": 0,
        "answered": number,
        **changes,
    }


def error(number: int) -> dict[str, Any]:
    return {
        "at": NOW - 10 * number,
        "session": "00000001",
        "agent": "codex",
        "tool": "mempalace_search",
        "code": -32012,
        "text": f"waited too long, {number}",
    }


def snapshot(**changes: Any) -> dict[str, Any]:
    """The snapshot, with what `status --json` adds to it."""
    lanes: dict[str, Any] = {lane: {"running": [], "queued": 0} for lane in ("palace", "free", "wait")}
    lanes["palace"] = {"running": [{"tool": "mempalace_search", "session": "00000001", "for_s": 0.2}], "queued": 3}
    made: dict[str, Any] = {
        "running": True,
        "exit_code": 0,
        "broker": {
            "version": "9.9",
            "pid": 41,
            "state": "serving",
            "started_at": NOW - 100.0,
            "uptime_s": 100.0,
            "epoch": 3,
            "rss_kb": 30_000,
        },
        "lease": {"epoch": 3, "state": "active"},
        "palace": {"path": "/home/u/.mempalace/palace"},
        "engine": {
            "state": "ready",
            "since_s": 90.0,
            "pid": 42,
            "version": "3.11.0",
            "restarts": 1,
            "drawers": 1234,
            "rss_kb": 220_000,
        },
        "lanes": lanes,
        "sessions": [session(1, agent="codex", in_flight=2), session(2, via="http")],
        "traffic": traffic(),
        "errors": [error(2), error(1)],
        "snapshots": {"folder": "/b", "count": 2, "newest_at": NOW - 7200},
        "counters": dict.fromkeys(("calls", "cancelled", "timeouts", "unknown_outcomes", "replayed", "sessions"), 7),
        "degraded": [],
        "endpoints": ["unix:/b.sock"],
        "http": {"requests": 5, "refused": {"401": 2}},
    }
    return made | changes
