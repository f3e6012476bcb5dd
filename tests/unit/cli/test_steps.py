"""How far a command is: lines where nobody watches, a bar on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mempalace_broker.cli import console as consoles
from mempalace_broker.cli.steps import Steps, steps


def work(shown: Steps) -> None:
    shown.begin("copying", 4_000_000)
    for _ in range(2):
        shown.advance(1_000_000)
    shown.begin("checking")
    shown.advance(7)


def test_lines_on_stderr_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with steps() as shown:
        work(shown)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "copying (4 MB) ...\nchecking ...\n")


def test_a_bar_on_a_terminal_that_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(consoles, "console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    with steps() as shown:
        shown.begin("copying", 4_000_000)
        shown.advance(1_000_000)
        shown._bars.refresh()  # type: ignore[attr-defined]  # it would, ten times a second
        work(shown)
    drawn = screen.getvalue()
    assert "copying" in drawn
    assert "1 of 4 MB" in drawn
    assert drawn.rstrip().endswith("\x1b[2K"), "the last thing is that it is wiped"
