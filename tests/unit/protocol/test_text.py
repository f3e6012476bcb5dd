"""Text of others on its way to a terminal: nothing in it is obeyed, and its length is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.text import LIMIT, printable, printable_tree


@pytest.mark.parametrize("text", ["", "claude-code 2.1", "Gedächtnis, 記憶, память, 🏛", "a" * LIMIT, r"C:\new\table"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("one\r\n2026 INFO two", r"one\r\n2026 INFO two"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("a\u2028b\u2029\ufeff\u200b", r"a\u2028b\u2029\ufeff\u200b"),
        ("\ud800", r"\ud800"),
        ("\x00\x7f", r"\x00\x7f"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_controls_marks_and_line_ends_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_length_is_bounded_and_the_cut_is_seen() -> None:
    assert printable("x" * 500) == "x" * (LIMIT - 3) + "..."
    assert printable("abcdef", 5) == "ab..."
    assert printable("\x1b" * 3, 8) == r"\x1b\..."
    assert len(printable("\x1b" * 100, 2)) == 2


@given(st.text(max_size=60), st.integers(0, 50))
def test_whatever_comes(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert printable(shown, limit) == shown


def test_every_text_of_a_json_value() -> None:
    value = {"a\n": ["\x1b", {"b": "\u202e", "n": 1, "t": True, "z": None}], "f": 0.5}
    assert printable_tree(value) == {r"a\n": [r"\x1b", {"b": r"\u202e", "n": 1, "t": True, "z": None}], "f": 0.5}


def test_escapes_that_just_fit_are_not_cut() -> None:
    assert printable("a\n", 3) == "a\\n"
