"""The rendered status: everything is in it, and nothing breaks it."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mempalace_broker.cli.console import duration, size
from mempalace_broker.cli.status_view import MOST_SESSIONS, last_exit, render_not_running, render_status


def status() -> dict[str, Any]:
    return {
        "broker": {
            "version": "9.9",
            "pid": 41,
            "state": "serving",
            "started_at": 1795000000.0,
            "started_by": "mp-shim [x]",
            "uptime_s": 7500.0,
            "rss_kb": 25000,
        },
        "palace": {"path": "/p/[red]x", "graph": "/g.sqlite3", "by": "config", "state_root": "/p"},
        "engine": {
            "state": "ready",
            "since_s": 12.0,
            "pid": 42,
            "version": "3.11.0",
            "interpreter": "/e/python",
            "source": "the broker's own environment",
            "restarts": 1,
            "drawers": 1234,
            "tuneups": [
                {"name": "pin-once", "applied": True},
                {"name": "delete-fix", "applied": False, "why": "not needed"},
            ],
            "rss_kb": 330000,
        },
        "lanes": {
            "palace": {"running": [{"tool": "mempalace_search", "session": "a" * 32, "for_s": 0.25}], "queued": 3},
            "free": {"running": [], "queued": 0},
        },
        "sessions": [
            {
                "id": "b" * 32,
                "agent": "codex",
                "client": "mp-shim",
                "pid": 7,
                "since_s": 5.0,
                "in_flight": 1,
                "answered": 9,
            }
        ],
        "counters": {"calls": 12, "reads": 8, "writes": 4, "errors": 2, "timeouts": 0},
        "settings": {
            "idle_s": {"value": 0, "source": "/p/config.toml"},
            "engine": {"value": "", "source": "default"},
        },
        "degraded": [{"what": "the disk is full", "hint": "free some space"}],
        "endpoints": ["unix:/p/broker.sock"],
    }


def drawn(parts: Any, width: int = 200) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False, soft_wrap=True)
    for part in parts:
        console.print(part)
    return out.getvalue()


def test_it_says_who_owns_and_since_when() -> None:
    http = {"url": "http://127.0.0.1:21000/mcp"}
    text = drawn(render_status({**status(), "http": http}))
    for piece in (
        "http://127.0.0.1:21000/mcp",
        "● serving  /p/[red]x",
        "pid 41",
        "24 MB",
        "2 h 5 min",
        "started by mp-shim [x]",
        "unix:/p/broker.sock",
    ):
        assert piece in text


def test_it_says_what_the_engine_is_and_where_from() -> None:
    text = drawn(render_status(status()))
    for piece in ("ready for 12 s", "mempalace 3.11.0", "1,234 drawers", "1 restart\n", "own environment"):
        assert piece in text
    assert "pin-once\n" in text


def test_a_tune_up_that_does_not_fit_is_shown() -> None:
    engine = {"state": "ready", "tuneups": [{"name": "pin-once", "applied": False, "why": "no such attribute"}]}
    assert "none  not: pin-once (no such attribute)" in drawn(render_status({**status(), "engine": engine}))


def test_a_broken_engine_shows_its_last_output() -> None:
    engine = {"state": "fatal", "stderr_tail": [f"line {n}" for n in range(9)]}
    text = drawn(render_status({**status(), "engine": engine}))
    assert "last output" in text
    assert "line 8" in text
    assert "line 3" not in text


def test_idle_lanes_are_one_line() -> None:
    assert "all idle" in drawn(render_status({**status(), "lanes": {"palace": {"running": [], "queued": 0}}}))


def test_on_a_terminal_long_lines_go_on_under_the_text() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    for part in render_status({**status(), "endpoints": ["unix:/" + "long/" * 30]}):
        console.print(part)
    lines = out.getvalue().splitlines()
    at = next(number for number, line in enumerate(lines) if "listens on" in line)
    assert lines[at + 1].startswith(" " * 13)
    assert all(len(line) <= 60 for line in lines)


def test_it_shows_lanes_sessions_counters() -> None:
    text = drawn(render_status(status()))
    assert "palace (one at a time): mempalace_search of aaaaaaaa for 0.2 s, 3 waiting" in text
    assert "free (beside it)" not in text
    assert "bbbbbbbb" in text
    assert "12 (8 reads, 4 writes); errors: 2" in text


def test_it_shows_where_settings_come_from() -> None:
    text = drawn(render_status(status()))
    assert "idle_s = 0  from /p/config.toml" in text
    assert "by default: engine (found by itself)" in text


def test_degraded_comes_with_its_hint() -> None:
    lines = drawn(render_status(status())).splitlines()
    at = next(number for number, line in enumerate(lines) if "the disk is full" in line)
    assert "free some space" in lines[at + 1]


def test_health_is_said_when_nothing_is_degraded() -> None:
    assert "nothing is degraded" in drawn(render_status({**status(), "degraded": []}))


def test_many_sessions_are_cut() -> None:
    many = {**status(), "sessions": [{"id": f"{n:032x}", "since_s": 1} for n in range(MOST_SESSIONS + 5)]}
    assert "and 5 more" in drawn(render_status(many))


def test_not_running_tells_the_last_reason() -> None:
    text = drawn(render_not_running("/p", "nobody listens", {"reason": "idle", "pid": 3, "version": "1", "at": None}))
    assert "not running  /p" in text
    assert "idle (pid 3, version 1)" in text


def test_last_exit_survives_an_empty_note() -> None:
    assert "unknown" in last_exit({})


@given(st.dictionaries(st.sampled_from(sorted(status())), st.none() | st.just({}) | st.just([]), max_size=4))
def test_a_snapshot_with_holes_is_still_drawn(holes: dict[str, Any]) -> None:
    merged = {**status(), **holes}
    for name in ("sessions", "degraded", "endpoints"):
        if not isinstance(merged[name], list):
            merged[name] = []
    assert drawn(render_status(merged))


@given(st.floats(min_value=0, max_value=1e8))
def test_durations_are_short(seconds: float) -> None:
    assert len(duration(seconds)) <= 12


def test_sizes() -> None:
    assert size(None) == ""
    assert size(2048) == "2 MB"
