from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.protocol.framing import LineReader, TooLong

LIMIT = 8


def feed_cut(data: bytes, cuts: list[int], limit: int) -> tuple[list[bytes | TooLong], int]:
    reader = LineReader(limit)
    out: list[bytes | TooLong] = []
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    for start, end in pairwise(edges):
        out += reader.feed(data[start:end])
    return out, reader.held


def test_whole_line() -> None:
    assert LineReader().feed(b"a\nbc\n") == [b"a", b"bc"]


def test_line_in_pieces_is_joined_once_complete() -> None:
    reader = LineReader()
    assert reader.feed(b"ab") == []
    assert reader.held == 2
    assert reader.feed(b"c\nd") == [b"abc"]
    assert reader.held == 1


def test_line_without_newline_comes_with_the_end_of_the_stream() -> None:
    reader = LineReader(LIMIT)
    assert reader.feed(b'{"id":1}') == []
    assert (reader.held, reader.end(), reader.end()) == (8, [b'{"id":1}'], [])
    assert reader.feed(b"x" * 9) == [TooLong(LIMIT)]
    assert reader.end() == [], "it was reported already"


def test_limit_is_inclusive() -> None:
    assert LineReader(LIMIT).feed(b"x" * 8 + b"\n" + b"y" * 9 + b"\n") == [b"x" * 8, TooLong(LIMIT)]
    reader = LineReader(LIMIT)
    assert reader.feed(b"x" * 8) == []
    assert (reader.held, reader.feed(b"\n")) == (8, [b"x" * 8])


def test_marks_of_oversized_lines_are_equal_where_the_limit_is() -> None:
    assert TooLong(8) == TooLong(8)
    assert TooLong(8) != TooLong(9)
    assert TooLong(8) != 8


def test_too_long_is_told_before_its_end_and_holds_nothing() -> None:
    reader = LineReader(LIMIT)
    assert reader.feed(b"x" * 6) == []
    assert reader.feed(b"x" * 6) == [TooLong(LIMIT)]
    assert reader.held == 0
    for _ in range(100):
        assert reader.feed(b"x" * 1000) == []
    assert reader.held == 0
    assert reader.feed(b"xx\ngood\n") == [b"good"]


def test_too_long_is_one_event_however_long() -> None:
    out, _ = feed_cut(b"z" * 1000 + b"\nok\n", list(range(0, 1000, 7)), LIMIT)
    assert out == [TooLong(LIMIT), b"ok"]


def test_carriage_return_and_empty_lines_stay() -> None:
    assert LineReader().feed(b"a\r\n\n\n") == [b"a\r", b"", b""]


@settings(deadline=None)
@given(st.binary(max_size=60).map(lambda b: b.replace(b"\x00", b"\n")), st.lists(st.integers(0, 60)))
def test_any_cut_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    assert feed_cut(data, cuts, LIMIT) == feed_cut(data, [], LIMIT)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b)), st.lists(st.integers(0, 200)))
def test_lines_come_back_as_they_were(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    expected = [line if len(line) <= LIMIT else TooLong(LIMIT) for line in lines]
    assert feed_cut(data, cuts, LIMIT) == (expected, 0)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=20))
def test_never_holds_more_than_the_limit(pieces: list[bytes]) -> None:
    reader = LineReader(LIMIT)
    for piece in pieces:
        reader.feed(piece)
        assert reader.held <= LIMIT
