"""One line a message: nobody can write a line of the log that looks like ours."""

from __future__ import annotations

import logging
import sys

import pytest

from mempalace_broker.broker.log_lines import LineFormatter

FORGED = "x\n2026-01-01T00:00:00.000 INFO all is well\x1b]52;c;ZXZpbA==\x07\u202e"


@pytest.mark.parametrize("args", [(FORGED,), ("%s", FORGED)])
def test_a_message_is_one_printable_line(args: tuple[str, ...]) -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, args[0], args[1:], None)
    line = LineFormatter("%(levelname)s %(message)s").format(record)
    assert line.isprintable()
    assert line.startswith(r"INFO x\n2026")


def test_a_traceback_is_set_off() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "in the loop", (), sys.exc_info())
    first, *rest = LineFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert first == "ERROR in the loop"
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert "ValueError: x" in rest[-2]


def test_a_flood_is_cut() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "y" * 10**6, (), None)
    assert len(LineFormatter("%(message)s").format(record)) == 10_000
