from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.engine_frames import (
    MAX_HEADER,
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    FrameError,
    parse_header,
)

words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
frames = st.builds(
    Frame,
    words,
    st.integers(0, 2**63),
    words | st.just("-"),
    words | st.integers(-99999, 99999).map(str),
    st.binary(max_size=200) | st.just(b"call 1 palace - 5\nhello"),
)


def decode_cut(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder = FrameDecoder()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [frame for start, end in pairwise(edges) for frame in decoder.feed(data[start:end])]


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_survive_any_cut(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.encode() for frame in sent)
    assert decode_cut(data, cuts) == sent


@given(st.lists(frames, max_size=4), frames, st.integers(0, 10_000))
def test_half_a_frame_is_never_told(sent: list[Frame], last: Frame, cut: int) -> None:
    tail = last.encode()
    data = b"".join(frame.encode() for frame in sent) + tail[: cut % len(tail)]
    assert decode_cut(data, [3]) == sent


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=4))
def test_noise_is_an_error_or_a_frame_and_never_a_crash(noise: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(FrameError):
        decode_cut(noise, cuts)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Segmentation fault (core dumped)",
        b"done 1 - 0",
        b"done 1 - 0 5 6",
        b"done x - 0 5",
        b"done 1 - 0 -1",
        b"done 1 - 0 %d" % (MAX_PAYLOAD + 1),
        b"do1e 1 - 0 5",
        b"done 1 - \xc3\xa9 5",
    ],
)
def test_an_invalid_header_is_quoted(line: bytes) -> None:
    with pytest.raises(FrameError, match="not a frame header"):
        parse_header(line)


def test_the_largest_payload_is_not_an_error() -> None:
    assert parse_header(b"done 1 - 0 %d" % MAX_PAYLOAD) == (Frame("done", 1, tag="0"), MAX_PAYLOAD)


def test_an_empty_line_is_garbled_at_once() -> None:
    with pytest.raises(FrameError, match="not a frame header"):
        FrameDecoder().feed(b"\n")


def test_a_header_ends_in_time() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"x" * (MAX_HEADER - 1)) == []
    with pytest.raises(FrameError, match="no frame header"):
        decoder.feed(b"x")


def test_frames_are_values_and_hide_their_payload() -> None:
    one, other = Frame("call", 1, "palace", "k", b"secret"), Frame("call", 1, "palace", "k", b"secret")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Frame("call", 2, "palace", "k", b"secret")
    assert one != "call"
    assert repr(one) == "Frame(call 1 palace k +6 bytes)"


@pytest.mark.parametrize(("lane", "tag"), [("palace", "k" * 600), ("a b", "-"), ("\u00e9 b", "-")])
def test_a_frame_that_nobody_could_read_is_not_written(lane: str, tag: str) -> None:
    with pytest.raises(FrameError):
        Frame("call", 1, lane, tag).encode()
