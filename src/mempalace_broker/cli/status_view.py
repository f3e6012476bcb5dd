"""The view that `status` prints: a snapshot of the broker as lines and tables. Pure: data in, renderables out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..locality.locality import OTHER_KERNEL
from .console import Labelled, duration, how_far, line, plural, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

LABEL_WIDTH = 13
MOST_SESSIONS = 40
MOST_OUTPUT = 5
_UNAVAILABLE = ("backoff", "unavailable", "fatal", "down")
NOT_NEEDED = "not needed"  # only doctor and --json show such tune-ups
_STATE_STYLE = {"serving": "bold green"} | dict.fromkeys(("ready", "parked"), "green")
_STATE_STYLE |= dict.fromkeys(("fatal", "unavailable"), "bold red")
_EMPTY = {"tcp": "off", "backup_dir": "the private folder"}
_LANE_NAMES = {"palace": "one at a time", "free": "beside it", "wait": "blocking"}


def render_status(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Render the answer to broker/status. Unknown or missing fields are ignored."""
    yield from _head(status)
    yield from _engine(_dict(status, "engine"))
    yield from _lanes(_dict(status, "lanes"))
    yield from _sessions(status.get("sessions") or [])
    yield from _backup(_dict(status, "backup"))
    yield _labelled("calls", _counters(_dict(status, "counters")))
    yield from _settings(_dict(status, "settings"))
    yield from _degraded(status.get("degraded") or [])


def render_not_running(palace: str, why: str, last: Mapping[str, Any] | None) -> Iterator[RenderableType]:
    """Render that no broker runs, with the reason of the last exit."""
    yield line(("○ ", "dim"), ("not running", "bold"), f"  {palace}")
    yield _labelled("why", why)
    if last:
        yield _labelled("last exit", last_exit(last))
    yield _labelled("start", "an agent's mp-shim starts it; by hand: mempalace-broker ensure")


def last_exit(last: Mapping[str, Any]) -> str:
    """broker-exit.json in words."""
    at = last.get("at")
    when = f", {_clock(at)}" if isinstance(at, int | float) else ""
    return f"{last.get('reason', 'unknown')} (pid {last.get('pid')}, version {last.get('version')}{when})"


def _head(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    broker, palace = _dict(status, "broker"), _dict(status, "palace")
    state = str(broker.get("state", "?"))
    yield line(
        ("● ", _STATE_STYLE.get(state, "yellow")),
        (f"{state}  ", _STATE_STYLE.get(state, "bold yellow")),
        (str(palace.get("path")), "bold"),
    )
    since = f"since {_clock(broker.get('started_at'))} ({duration(float(broker.get('uptime_s') or 0))})"
    by = f", started by {broker['started_by']}" if broker.get("started_by") else ""
    memory = f", {size(broker.get('rss_kb'))}" if broker.get("rss_kb") else ""
    yield _labelled("owner", f"mempalace-broker {broker.get('version')}, pid {broker.get('pid')}{memory}")
    yield _labelled("", f"{since}{by}")
    here = _dict(status, "here")
    if here.get("locality") == OTHER_KERNEL:
        yield _labelled("route", f"{here.get('route')} ({here.get('why')})")
    places = [*(status.get("endpoints") or []), *filter(None, [_dict(status, "http").get("url")])]
    yield _labelled("listens on", ", ".join(map(str, places)))
    refused = _dict(_dict(status, "tcp"), "refused")
    if refused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in refused.items())
        yield _labelled("", (f"refused over TCP since the start: {kinds}", "dim"))
    yield _labelled("graph", f"{palace.get('graph')} (palace chosen by {palace.get('by')})")


def _engine(engine: Mapping[str, Any]) -> Iterator[RenderableType]:
    state = str(engine.get("state", "?"))
    parts = [f"mempalace {engine.get('version') or '?'}"]
    if engine.get("pid"):
        parts.append(f"pid {engine['pid']}")
    if engine.get("rss_kb"):
        parts.append(size(engine["rss_kb"]))
    if engine.get("drawers") is not None:
        parts.append(f"{engine['drawers']:,} drawers at start")
    parts.append(plural(int(engine.get("restarts") or 0), "restart"))
    since = f" for {duration(float(engine.get('since_s') or 0))}: "
    yield _labelled("engine", (state, _STATE_STYLE.get(state, "yellow")), since + ", ".join(parts))
    if engine.get("interpreter"):
        yield _labelled("", f"{engine['interpreter']} ({engine.get('source')})")
    if state in _UNAVAILABLE:
        for number, text in enumerate((engine.get("stderr_tail") or [])[-MOST_OUTPUT:]):
            yield _labelled("last output" if number == 0 else "", (str(text), "dim"))
    storage = _dict(engine, "storage")
    if storage:
        tables = f", tables {storage['tables']}_*" if storage.get("tables") else ""
        yield _labelled("storage", f"{engine.get('backend')} at {storage.get('where')}{tables}")
    tuneups = [t for t in engine.get("tuneups") or [] if isinstance(t, dict)]
    if tuneups:
        on = [str(t.get("name")) for t in tuneups if t.get("applied")]
        why = {str(t.get("name")): str(t.get("why") or "off") for t in tuneups if not t.get("applied")}
        off = [f"{name} ({text})" for name, text in why.items() if not text.startswith(NOT_NEEDED)]
        yield _labelled("tune-ups", ", ".join(on) or "none", ("  not: " + ", ".join(off) if off else "", "dim"))


def _lanes(lanes: Mapping[str, Any]) -> Iterator[RenderableType]:
    shown = []
    for name, lane in lanes.items():
        if not isinstance(lane, dict) or not (lane.get("running") or lane.get("queued")):
            continue
        running = lane.get("running") or []
        calls = [
            f"{c.get('tool')} of {_short(c.get('session'))} for {duration(c.get('for_s') or 0)}{how_far(c)}"
            for c in running
        ]
        queued = f", {lane['queued']} waiting" if lane.get("queued") else ""
        shown.append(f"{name} ({_LANE_NAMES.get(name, '')}): {', '.join(calls) or 'idle'}{queued}")
    for number, text in enumerate(shown or ["all idle"]):
        yield _labelled("lanes" if number == 0 else "", text)


def _sessions(sessions: list[Any]) -> Iterator[RenderableType]:
    yield _labelled("sessions", str(len(sessions)) if sessions else "none")
    if not sessions:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for column in ("session", "client", "pid", "for", "in flight", "answered"):
        table.add_column(column, justify="left" if column in ("session", "client") else "right")
    for session in sessions[:MOST_SESSIONS]:
        table.add_row(
            Text(_short(session.get("id"))),
            Text(_who(session)),
            str(session.get("pid") or ""),
            duration(float(session.get("since_s") or 0)),
            str(session.get("in_flight", "")),
            str(session.get("answered", "")),
        )
    yield Padding(table, (0, 0, 0, LABEL_WIDTH))
    if len(sessions) > MOST_SESSIONS:
        yield _labelled("", f"and {len(sessions) - MOST_SESSIONS} more; --json lists them all")


def _who(session: Mapping[str, Any]) -> str:
    """ "codex via mp-shim 1.0", and the way it came where that is not the socket."""
    names = " via ".join(str(session[k]) for k in ("agent", "client") if session.get(k))
    way = session.get("via") or "unix"
    return names if way == "unix" else f"{names} over {way}"


def _counters(counters: Mapping[str, Any]) -> str:
    total = f"{counters.get('calls', 0):,} ({counters.get('reads', 0):,} reads, {counters.get('writes', 0):,} writes)"
    rest = [
        f"{name.replace('_', ' ')}: {value:,}"
        for name, value in counters.items()
        if name not in ("calls", "reads", "writes") and isinstance(value, int) and value
    ]
    return total + ("; " + ", ".join(rest) if rest else "")


def _backup(backup: Mapping[str, Any]) -> Iterator[RenderableType]:
    if not backup:
        return
    made = f"{backup.get('name')}, {size(float(backup.get('bytes') or 0) / 1024)}" if backup.get("name") else "none yet"
    after = "one is being made" if backup.get("running") else f"next in {duration(float(backup.get('due_in_s') or 0))}"
    yield _labelled("snapshots", f"{made}; {after}")


def _settings(settings: Mapping[str, Any]) -> Iterator[RenderableType]:
    entries = [(name, entry) for name, entry in settings.items() if isinstance(entry, dict)]
    set_ = [(name, entry) for name, entry in entries if entry.get("source") != "default"]
    for number, (name, entry) in enumerate(set_):
        text = f"{name} = {entry.get('value')}"
        yield _labelled("settings" if number == 0 else "", text, (f"  from {entry.get('source')}", "dim"))
    defaults = [f"{name} {_default(name, entry)}" for name, entry in entries if entry.get("source") == "default"]
    if defaults:
        yield _labelled("" if set_ else "settings", ("by default: " + ", ".join(defaults), "dim"))


def _default(name: str, entry: Mapping[str, Any]) -> str:
    value = entry.get("value")
    return _EMPTY.get(name, "(found by itself)") if value == "" else str(value).lower()


def _degraded(entries: list[Any]) -> Iterator[RenderableType]:
    for entry in entries:
        if isinstance(entry, dict):
            yield line(("! ", "bold yellow"), (str(entry.get("what")), "yellow"))
            if entry.get("hint"):
                yield _labelled("  hint", str(entry["hint"]))
    if not entries:
        yield _labelled("health", ("nothing is degraded", "green"))


def _labelled(label: str, *parts: str | tuple[str, str]) -> Labelled:
    return Labelled(label, line(*parts), LABEL_WIDTH)


def _short(name: object) -> str:
    text = str(name)
    return text[:8] if len(text) >= 32 else text


def _clock(at: object) -> str:
    if not isinstance(at, int | float) or at <= 0:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _dict(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}
