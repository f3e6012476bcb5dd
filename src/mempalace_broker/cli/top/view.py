"""The live screen: the broker's status as lines that fit a terminal. Pure: data and size in, lines out.

If there is not enough room, sessions shrink first, to the space between the lanes and the errors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from ..console import duration, how_far, line, plural, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-=+*#@"  # where the terminal's encoding has no blocks
_STATES = {"serving": "bold green", "ready": "green", "parked": "green"}
_BAD = ("fatal", "unavailable", "backoff")
_MOST_ERRORS = 5
_MOST_DEGRADED = 3
_LEAST_SESSIONS = 3  # rows that errors leave to sessions
_KEYS = " q quit "
_OLDER = "The running broker is of an older version: mempalace-broker restart"


def screen(
    status: Mapping[str, Any], width: int, height: int, *, now: float, unicode: bool = True, live: bool = True
) -> list[Text]:
    """Return the lines of the screen, none wider than `width`: exactly `height` if it is `live`, else at most.

    Args:
        now: seconds since 1970. unicode: whether the terminal shows more than ASCII.
    """
    keys = [line((_KEYS, "reverse"))] if live else []
    if not status.get("running"):
        return _fitted([*_not_running(status), *keys], width, height, unicode=unicode)
    head = _title(status, width, now, unicode=unicode)
    if status.get("brief"):
        return _fitted([head, *_guests(status), *keys], width, height, unicode=unicode)
    if "traffic" not in status:
        return _fitted([head, Text(_OLDER), *keys], width, height, unicode=unicode)
    above = [head, *_processes(status), *_degraded(status), Text(), *_rates(status, width, unicode=unicode), Text()]
    above += [*_lanes(status), Text()]
    end = _ends(status, now, live=live)
    middle = _middle(_sessions(status, width), _errors(status, now), height - len(above) - 1)
    filler = [Text()] * (height - len(above) - len(middle) - 1) if live else []
    return _fitted([*above, *middle, *filler, end], width, height, unicode=unicode)


def _middle(sessions: list[Text], errors: list[Text], room: int) -> list[Text]:
    """Share `room` lines: a few for sessions, then as many as the errors need, the rest for more sessions."""
    spare = room - 1 - min(len(sessions), _LEAST_SESSIONS + 2)  # with the head, and the count of the hidden ones
    errors = errors[: spare if spare > 1 else 0]
    shown = sessions[: max(0, room - len(errors) - bool(errors))]
    if shown and len(shown) < len(sessions):
        shown[-1] = Text(f"and {len(sessions) - len(shown) + 1} more: mempalace-broker status", "dim")
    return [*shown, *([Text()] if errors else []), *errors]


def _fitted(lines: Sequence[Text], width: int, height: int, *, unicode: bool) -> list[Text]:
    """Cut to size, but keep the last line, which says how to leave."""
    kept = list(lines) if len(lines) <= height else [*lines[: height - 1], lines[-1]]
    for text in kept:
        text.truncate(width, overflow="ellipsis" if unicode else "crop")
        text.no_wrap = True
    return kept


def _title(status: Mapping[str, Any], width: int, now: float, *, unicode: bool) -> Text:
    broker, palace = status["broker"], status["palace"]
    state = str(broker["state"])
    style = _STATES.get(state, "bold yellow")
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    up = f"up {duration(float(broker['uptime_s']))}  {clock}"
    left = line((f"{state}  ", style), (str(palace["path"]), "bold"))
    left.truncate(max(0, width - cell_len(up) - 2), overflow="ellipsis" if unicode else "crop")
    left.append(" " * max(2, width - left.cell_len - cell_len(up)))
    left.append(up, "dim")
    return left


def _processes(status: Mapping[str, Any]) -> list[Text]:
    broker, engine = status["broker"], status["engine"]
    state = str(engine["state"])
    style = "bold red" if state in _BAD else _STATES.get(state, "yellow")
    facts = [f"mempalace {engine['version'] or '?'}"]
    facts += [f"pid {engine['pid']}"] if engine["pid"] else []
    facts += [size(engine["rss_kb"])] if engine["rss_kb"] else []
    facts += [f"{engine['drawers']:,} drawers"] if engine["drawers"] is not None else []
    facts += [plural(engine["restarts"], "restart")] if engine["restarts"] else []
    since = f" {duration(float(engine['since_s'] or 0))}, "
    own = [str(broker["version"]), f"pid {broker['pid']}", size(broker["rss_kb"])]
    own += [plural(len(status["sessions"]), "session"), f"{len(status['degraded'])} degraded"]
    return [
        line(("broker  ", "dim"), ", ".join(own)),
        line(("engine  ", "dim"), (state, style), since + ", ".join(facts)),
    ]


def _degraded(status: Mapping[str, Any]) -> list[Text]:
    return [
        line(("! ", "bold yellow"), (str(entry["what"]), "yellow")) for entry in status["degraded"][:_MOST_DEGRADED]
    ]


def _rates(status: Mapping[str, Any], width: int, *, unicode: bool) -> list[Text]:
    traffic = status["traffic"]
    minute, quarter = traffic["windows"]["1m"], traffic["windows"]["15m"]
    head = f"{'':8}{'calls/s':>9}{'errors/s':>10}{'p50':>10}{'p95':>10}{'p99':>10}"
    rows = [
        f"{name:8}{window['calls_per_s']:9.2f}{window['errors_per_s']:10.2f}"
        + "".join(f"{milliseconds(window[p]):>10}" for p in ("p50_s", "p95_s", "p99_s"))
        for name, window in (("1 min", minute), ("15 min", quarter))
    ]
    bars = sparkline(traffic["calls"], max(8, min(len(traffic["calls"]), width - 34)), unicode=unicode)
    most = max(traffic["calls"], default=0) / traffic["slot_s"]
    chart = line(("calls   ", "dim"), (bars, "cyan"), (f" 15 min, most {most:.1f}/s", "dim"))
    return [Text(head, "dim"), *map(Text, rows), chart]


def _lanes(status: Mapping[str, Any]) -> list[Text]:
    lines = [Text(f"{'lane':8}{'waiting':>9}  running", "dim")]
    for name, lane in status["lanes"].items():
        calls = [
            f"{_tool(c['tool'])} of {_short(c['session'])} for {duration(c['for_s'])}{how_far(c)}"
            for c in lane["running"]
        ]
        lines.append(line(f"{name:8}{lane['queued']:9}  {', '.join(calls) or '-'}"))
    return lines


def _sessions(status: Mapping[str, Any], width: int) -> list[Text]:
    if not status["sessions"]:
        return [Text("no sessions", "dim")]
    wide = max(10, width - 10 - 14 - 9 - 9 - 11)
    lines = [
        Text(f"{'session':10}{set_cell_size('agent', wide)}{'via':14}{'for':>9}{'open':>9}{'answered':>11}", "dim")
    ]
    busy = sorted(status["sessions"], key=lambda session: (-session["in_flight"], -session["answered"]))
    for session in busy:
        agent = " by ".join(str(session[name]) for name in ("agent", "client") if session[name])
        lines.append(
            line(
                f"{_short(session['id']):10}{set_cell_size(agent, wide - 1)} {set_cell_size(str(session['via']), 13)} "
                f"{duration(float(session['since_s'])):>9}{session['in_flight']:9}{session['answered']:11,}"
            )
        )
    return lines


def _errors(status: Mapping[str, Any], now: float) -> list[Text]:
    errors = status["errors"][: -_MOST_ERRORS - 1 : -1]
    if not errors:
        return []
    lines = [Text("last errors", "dim")]
    for error in errors:
        ago = duration(max(0.0, now - error["at"]))
        who = error["agent"] or error["session"] or "?"
        lines.append(line((f"{ago:>9} ago  ", "dim"), f"{_tool(error['tool'])} of {who}: ", (error["text"], "red")))
    return lines


def _ends(status: Mapping[str, Any], now: float, *, live: bool) -> Text:
    """The last line: how to leave, the lease, the snapshots."""
    lease, snapshots = status["lease"], status["snapshots"]
    held = f"lease {lease.get('epoch')} {lease.get('state')}"
    kept = "no snapshots"
    if snapshots["newest_at"]:
        kept = f"newest snapshot {duration(max(0.0, now - snapshots['newest_at']))} old"
    keys = [(_KEYS, "reverse"), ("  ", "")] if live else []
    return line(*keys, (f"{held}, {kept}", "dim"))


def _guests(status: Mapping[str, Any]) -> list[Text]:
    engine = status["engine"]
    return [
        line(("engine  ", "dim"), f"{engine['state']}, mempalace {engine['version'] or '?'}"),
        *_lanes(status),
        *_degraded(status),
        Text("A guest sees no more: run this on the broker's machine.", "dim"),
    ]


def _not_running(status: Mapping[str, Any]) -> list[Text]:
    last = status.get("last_exit") or {}
    lines = [line(("not running  ", "bold yellow"), (str(status["palace"]["path"]), "bold")), line(str(status["why"]))]
    if last:
        lines.append(line(("last exit  ", "dim"), str(last.get("reason", "unknown"))))
    return [*lines, Text("An agent's mp-shim starts it; by hand: mempalace-broker ensure", "dim")]


def milliseconds(seconds: float | None) -> str:
    """ "0.42 ms", "120 ms", "1.5 s", "-" where there is none."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def sparkline(values: Sequence[float], columns: int, *, unicode: bool = True) -> str:
    """Draw the values as bars in at most `columns` columns, newest at the right; a column shows its largest value."""
    bars = _BARS if unicode else _PLAIN_BARS
    columns = min(columns, len(values))
    groups = [values[i * len(values) // columns : (i + 1) * len(values) // columns] for i in range(columns)]
    tops = [max(group) for group in groups]
    most = max(tops, default=0)
    return "".join(bars[min(len(bars) - 1, int(top * len(bars) / most))] if top else " " for top in tops)


def _tool(name: object) -> str:
    return str(name).removeprefix("mempalace_")


def _short(name: object) -> str:
    return str(name)[:8]
