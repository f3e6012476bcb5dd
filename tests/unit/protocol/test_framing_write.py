from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mempalace_broker.protocol.framing import WriteBuffer

KB = 1024


@settings(deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=8), st.lists(st.integers(1, 150_000), min_size=1))
def test_bytes_come_out_as_they_went_in_however_little_is_taken(sizes: list[int], takes: list[int]) -> None:
    box = WriteBuffer()
    lines = [bytes([97 + n % 26]) * size for n, size in enumerate(sizes)]
    for line in lines:
        box.put_line(line)
    out = b""
    turn = 0
    while box.size:
        head = bytes(box.head())
        assert head
        take = min(takes[turn % len(takes)], len(head))
        out += head[:take]
        box.advance(take)
        turn += 1
    assert out == b"".join(line + b"\n" for line in lines)
    assert box.head() == b""


def test_short_lines_leave_together_and_long_ones_are_not_copied() -> None:
    box = WriteBuffer()
    box.put_line(b"a")
    box.put_line(b"b")
    assert box.head() == b"a\nb\n"
    box.clear()
    long = b"x" * (100 * KB)
    box.put_line(long)
    assert box.head() is long
    box.advance(0)
    assert box.size == 100 * KB + 1
    box.advance(KB)
    rest = box.head()
    assert isinstance(rest, memoryview)
    assert rest.obj is long


def test_a_line_of_64_kib_is_not_copied_and_two_of_half_of_that_leave_together() -> None:
    box = WriteBuffer()
    line = b"x" * (64 * KB)
    box.put_line(line)
    assert box.head() is line
    box.clear()
    for _ in range(3):
        box.put_line(b"x" * (32 * KB - 1))
    assert len(box.head()) == 64 * KB


def test_cleared_is_empty() -> None:
    box = WriteBuffer()
    box.put(b"a\n")
    box.clear()
    assert (box.size, box.head()) == (0, b"")
