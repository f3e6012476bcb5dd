"""One line a message: nobody can write a line of the log that looks like ours."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from mempalace_broker.broker.log_lines import ENGINES_WORDS, JsonFormatter, LineFormatter, about
from mempalace_broker.broker.machine.session import Session

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


def as_json(record: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter().format(record)
    assert line.isprintable()
    found: dict[str, object] = json.loads(line)
    return found


def test_json_has_the_session_and_its_agent() -> None:
    session = Session(1, 0.0, 7, "ab12cd34", agent="codex")
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "dropping %d", (4,), None)
    record.created, record.msecs = 1795000000.25, 250.0
    vars(record).update(about(session))
    assert as_json(record) == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "warning",
        "session": "ab12cd34",
        "agent": "codex",
        "message": "dropping 4",
    }
    assert about(None) == {}


def test_json_is_one_line_whatever_comes() -> None:
    found = as_json(logging.LogRecord("x", logging.INFO, "f", 1, "%s", (FORGED,), None))
    assert str(found["message"]).startswith(r"x\n2026")
    assert found["session"] is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("added a drawer: my secret", "engine: (a line of the engine, not shown)"),
        ("ValueError: my secret", "engine: ValueError"),
    ],
)
def test_json_quotes_no_words_of_the_engine(words: str, shown: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "engine: %s", (words,), None)
    assert words in LineFormatter("%(message)s").format(record)
    setattr(record, ENGINES_WORDS, words)
    assert as_json(record)["message"] == shown


def test_a_traceback_in_json_has_no_words() -> None:
    try:
        raise ValueError("my secret")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "in the loop", (), sys.exc_info())
    found = as_json(record)
    assert "my secret" not in json.dumps(found)
    assert isinstance(found["traceback"], list)
    assert found["traceback"][-1] == "ValueError"
