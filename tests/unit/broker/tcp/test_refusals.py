from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.broker.tcp.refusals import (
    FIRST_DELAY_S,
    FORGIVEN_S,
    LOG_EVERY_S,
    LONGEST_DELAY_S,
    MOST_ADDRESSES,
    Refusals,
)


class Book:
    """A tally with a clock that stands still, and what it said."""

    def __init__(self) -> None:
        self.now = 100.0
        self.said: list[str] = []
        self.tally = Refusals(lambda: self.now, self.said.append)


def test_the_wait_grows_and_is_forgiven() -> None:
    book = Book()
    delays = [book.tally.note("10.0.0.1", "garbage") for _ in range(12)]
    assert delays[0] == FIRST_DELAY_S
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_S
    assert book.tally.note("10.0.0.2", "garbage") == FIRST_DELAY_S
    book.now += FORGIVEN_S + 1
    assert book.tally.note("10.0.0.1", "garbage") == FIRST_DELAY_S


def test_the_first_is_said_at_once_the_rest_together() -> None:
    book = Book()
    for _ in range(500):
        book.tally.note("10.0.0.1", "garbage")
        book.tally.note("10.0.0.2", "wrong proof")
        book.now += 0.01
    assert book.said == ["refused over TCP: 10.0.0.1 (1 garbage)"]
    book.now += LOG_EVERY_S
    book.tally.flush(book.now)
    book.tally.flush(book.now)
    assert book.said[1:] == ["refused over TCP: 10.0.0.2 (500 wrong proof), 10.0.0.1 (499 garbage)"]
    assert book.tally.totals == {"garbage": 500, "wrong proof": 500}


@given(st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["a", "b"]), st.floats(0, 5)), max_size=400))
def test_bounded_whoever_comes(knocks: list[tuple[int, str, float]]) -> None:
    book = Book()
    for number, kind, pause in knocks:
        book.now += pause
        delay = book.tally.note(f"10.1.{number >> 8}.{number & 255}", kind)
        assert FIRST_DELAY_S <= delay <= LONGEST_DELAY_S
    assert len(book.said) <= 1 + (book.now - 100) / LOG_EVERY_S
    assert sum(book.tally.totals.values()) == len(knocks)


def test_memory_and_lines_are_bounded() -> None:
    book = Book()
    for number in range(10_000):
        book.tally.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "garbage")
    book.now += LOG_EVERY_S
    book.tally.flush(book.now)
    assert len(book.tally._recent) <= MOST_ADDRESSES
    assert len(book.said) == 2
    assert max(map(len, book.said)) < 600
    assert "more addresses" in book.said[1]
