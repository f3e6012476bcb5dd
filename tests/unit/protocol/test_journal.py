from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.journal import KEEP_BYTES, ended, parse, started, whole_length

keys = st.text("abc0123456789.", min_size=1, max_size=6)
responses = st.binary(max_size=60) | st.sampled_from([b"S a\n", b"\nE a 3\nxyz\n", b"E a -1\n"])
entries = st.lists(st.tuples(keys, st.none() | responses), max_size=12)


def written(notes: list[tuple[str, bytes | None]]) -> tuple[bytes, dict[str, bytes | None], set[str]]:
    """The journal of these entries (None: a start), and what it means."""
    data = b""
    done: dict[str, bytes | None] = {}
    begun: set[str] = set()
    for key, response in notes:
        if response is None:
            data += started(key)
            begun.add(key)
            done.pop(key, None)
        else:
            data += ended(key, response)
            begun.discard(key)
            done[key] = response
    return data, done, begun


@given(entries)
def test_what_was_written_is_read(notes: list[tuple[str, bytes | None]]) -> None:
    data, done, begun = written(notes)
    assert parse(data) == (done, begun)


@given(entries, st.integers(0, 10_000))
def test_half_an_entry_at_the_end_counts_for_nothing(notes: list[tuple[str, bytes | None]], cut: int) -> None:
    """A kill while the last entry is written leaves the state before it: never a made-up end, never half an answer."""
    data = b""
    states = [parse(b"")]
    edges = [0]
    for note in notes:
        data += written([note])[0]
        edges.append(len(data))
        states.append(parse(data))
    cut %= len(data) + 1
    whole = max(index for index, edge in enumerate(edges) if edge <= cut)
    assert parse(data[:cut]) == states[whole]
    assert whole_length(data[:cut]) == edges[whole]


@given(st.binary(max_size=300))
def test_noise_is_read_without_an_error(noise: bytes) -> None:
    done, begun = parse(noise)
    assert not done.keys() & begun
    assert 0 <= whole_length(noise) <= len(noise)


def test_an_answer_too_large_is_known_to_be_there() -> None:
    data = started("k") + ended("k", b"x" * (KEEP_BYTES + 1)) + started("l")
    assert parse(data) == ({"k": None}, {"l"})
    assert parse(ended("k", b"x" * KEEP_BYTES))[0] == {"k": b"x" * KEEP_BYTES}


def test_a_second_run_makes_the_first_ones_answer_void() -> None:
    first = started("k") + ended("k", b"stale library")
    assert parse(first + started("k")) == ({}, {"k"})
    assert parse(first + started("k") + ended("k", b"stored")) == ({"k": b"stored"}, set())


@pytest.mark.parametrize("line", [b"E k x\n", b"S\n", b"E k\n", b"Q k\n", b"\n", b"S a b\n", b"Q k 3\n"])
def test_lines_that_mean_nothing_are_passed_over(line: bytes) -> None:
    assert parse(line + started("k")) == ({}, {"k"})
