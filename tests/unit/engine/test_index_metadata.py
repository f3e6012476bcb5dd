"""The metadata of an index: ids are read from plain pickles only, and no bytes make reading crash, hang or swell."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.engine.index_copies import FILES, parse_stamps
from mempalace_broker.engine.index_metadata import META, Torn, UnknownFormat, parse_metadata, read_ids
from mempalace_broker.system.shared_files import SharedFolder

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def metadata(ids: dict[str, int], **more: Any) -> dict[str, Any]:
    return {"dimensionality": 384, "total_elements_added": len(ids), "id_to_label": ids, **more}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@given(ids=st.dictionaries(st.text(), st.integers(0, 2**62)), more=plain)
def test_plain_values_are_read(protocol: int, ids: dict[str, int], more: Any) -> None:
    data = pickle.dumps(metadata(ids, more=more), protocol)
    assert parse_metadata(data) == (set(ids), len(ids))


@given(st.binary() | st.binary().map(lambda data: b"\x80\x04" + data))
def test_any_bytes_are_ids_or_a_refusal(data: bytes) -> None:
    try:
        ids, _ = parse_metadata(data)
    except (Torn, UnknownFormat):
        return
    assert all(isinstance(id_, str) for id_ in ids)


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 9)), st.data())
def test_a_pickle_with_some_bytes_changed_is_ids_or_a_refusal(ids: dict[str, int], data: st.DataObject) -> None:
    changed = bytearray(pickle.dumps(metadata(ids), 4))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(2, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_metadata(bytes(changed))
    except (Torn, UnknownFormat):
        return


class Program:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("it ran",)


BOMBS = {
    "a program": pickle.dumps({"id_to_label": Program()}),
    "a large place in the memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a large place in the memo, as text": b"\x80\x02}p2147483647\n.",
    "text without its bytes": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little"),
    "bytes without their bytes": b"\x80\x04B" + (2**31).to_bytes(4, "little"),
    "a number of many digits": b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
    "lists in lists": b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "many empty dicts": b"\x80\x04" + b"}" * 200_000 + b".",
    "pairs of pairs, which take for ever to hash": b"\x80\x02}X\x0b\x00\x00\x00id_to_label})"
    + b"2\x86" * 60
    + b"K\x01ss.",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_for_little(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((Torn, UnknownFormat)):
            parse_metadata(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert capsys.readouterr().out == ""


@given(st.binary())
def test_any_bytes_are_stamps_or_none(data: bytes) -> None:
    assert parse_stamps(data) is None


@pytest.mark.parametrize("bad", ["1e999", "1.5", "true", '"1"', "null", "1" * 30, "[1]"])
def test_a_stamp_that_is_not_a_whole_number_is_invalid(bad: str) -> None:
    good = [[1, 2]] * len(FILES)
    assert parse_stamps(repr(good).encode()) == [(1, 2)] * len(FILES)
    assert parse_stamps(repr(good).replace("2]]", f"{bad}]]").encode()) is None


def test_metadata_that_claim_any_size_are_not_read(tmp_path: Path) -> None:
    (tmp_path / META).touch()
    os.truncate(tmp_path / META, 4 << 30)
    tracemalloc.start()
    try:
        with SharedFolder.open(str(tmp_path)) as index, pytest.raises(UnknownFormat, match="longer than"):
            read_ids(index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
