"""The live screen: it fits every terminal, and nothing in it breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.cli.top.view import milliseconds, screen, sparkline
from tests.fakes.snapshot import NOW, error, session, snapshot


def drawn(status: dict[str, Any], width: int = 80, height: int = 24, **more: Any) -> list[str]:
    lines = screen(status, width, height, now=NOW, **more)
    assert all(line.cell_len <= width for line in lines)
    return [line.plain.rstrip() for line in lines]


def test_everything_is_on_a_screen_of_80_by_24() -> None:
    lines = drawn(snapshot())
    text = "\n".join(lines)
    assert len(lines) == 24
    for part in (
        "serving  /home/u/.mempalace/palace",
        "up 100 s",
        "broker  9.9, pid 41, 29 MB, 2 sessions, 0 degraded",
        "engine  ready 90 s, mempalace 3.11.0, pid 42, 215 MB, 1,234 drawers, 1 restart",
        "palace          3  search of 00000001 for 0.2 s",
        "codex by mp-shim 0.1.0",
        "   10 s ago  search of codex: waited too long, 1",
        "lease 3 active, newest snapshot 2 h 0 min old",
    ):
        assert part in text
    assert lines[-1].startswith(" q quit ")
    assert text.index("codex by") < text.index("agent-2"), "the busiest first"


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 50), st.integers(0, 20), st.integers(0, 5))
def test_it_fits(width: int, height: int, sessions: int, errors: int, degraded: int) -> None:
    status = snapshot(
        sessions=[session(number, agent="\u6f22\u5b57" * 40) for number in range(sessions)],
        errors=[error(number) for number in range(errors)],
        degraded=[{"what": "no room " * 30, "hint": "make some"}] * degraded,
    )
    lines = drawn(status, width, height)
    assert len(lines) == height
    assert lines[-1].strip().startswith("q quit"[: max(0, width - 2)]) or width < 9


def test_sessions_that_have_no_room_are_counted() -> None:
    lines = drawn(snapshot(sessions=[session(number) for number in range(30)], errors=[error(n) for n in range(20)]))
    shown = [line for line in lines if "mp-shim" in line]
    assert len(shown) >= 3
    assert f"and {30 - len(shown)} more: mempalace-broker status" in lines
    assert any("waited too long, 19" in line for line in lines), "the newest error is shown"


def test_without_a_terminal_it_is_as_long_as_it_has_to_be() -> None:
    lines = drawn(snapshot(), height=200, live=False)
    assert len(lines) < 30
    assert "q quit" not in "\n".join(lines)


def test_ascii_alone() -> None:
    assert "\n".join(drawn(snapshot(), unicode=False)).isascii()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {"running": False, "palace": {"path": "/p"}, "why": "nobody listens", "last_exit": {"reason": "idle"}},
            "idle",
        ),
        ({"running": False, "palace": {"path": "/p"}, "why": "nobody listens"}, "nobody listens"),
        ({name: value for name, value in snapshot().items() if name != "traffic"}, "mempalace-broker restart"),
        (snapshot(brief=True, engine={"state": "ready", "version": None}), "on the broker's machine"),
    ],
)
def test_what_else_there_may_be(status: dict[str, Any], words: str) -> None:
    assert words in "\n".join(drawn(status))


def test_a_broker_without_an_engine_or_calls() -> None:
    engine = {
        "state": "fatal",
        "since_s": None,
        "pid": None,
        "version": None,
        "restarts": 0,
        "drawers": None,
        "rss_kb": None,
    }
    snapshots = {"folder": None, "count": 0, "newest_at": None}
    text = "\n".join(drawn(snapshot(engine=engine, sessions=[], errors=[], snapshots=snapshots)))
    assert "engine  fatal 0.0 s, mempalace ?" in text
    assert "no sessions" in text
    assert "no snapshots" in text


def test_durations() -> None:
    assert [milliseconds(s) for s in (None, 0.00042, 0.0125, 0.12, 1.52)] == [
        "-",
        "0.4 ms",
        "12.5 ms",
        "120 ms",
        "1.5 s",
    ]


def test_bars() -> None:
    assert sparkline([0, 1, 2, 4], 4) == " \u2583\u2585\u2588"
    assert sparkline([0, 4, 0, 0], 2) == "\u2588 "
    assert sparkline([0, 0], 9) == "  "
    assert sparkline([0, 1], 2, unicode=False) == " @"
