"""A record that may be anything: whatever the bytes, reading it never raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.record import (
    MAX_BYTES,
    BadRecord,
    DiscoveryRecord,
    decode,
    encode,
    from_this_kernel,
    is_own,
)

PALACE: dict[str, str | None] = {"path": "/p", "graph": "/g", "by": "flag", "backend": None, "collection": None}
GOOD: dict[str, Any] = {"schema": 1, "pid": 77, "endpoints": ["unix:/s"], "palace": PALACE, "record": "ab"}

texts = st.text(max_size=30)
records = st.builds(
    DiscoveryRecord,
    record=texts,
    pid=st.integers(1, 2**31 - 1),
    endpoints=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4),
    palace=st.just(PALACE),
    epoch=st.integers(0, 2**40),
    start=texts,
    boot=texts,
    pidns=texts,
    host=texts,
    token=st.none() | texts,
    wire=st.integers(0, 100),
    capabilities=st.lists(texts, max_size=4),
    broker_version=texts,
    engine_version=texts,
    started_at=st.floats(0, 1e11),
    started_by=texts,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def record_from(**changes: Any) -> DiscoveryRecord | BadRecord:
    return decode(json.dumps({**GOOD, **changes}).encode())


@given(records)
def test_round_trip(record: DiscoveryRecord) -> None:
    assert decode(encode(record)) == record


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    assert isinstance(decode(data), DiscoveryRecord | BadRecord)


@given(
    st.dictionaries(
        st.sampled_from([*DiscoveryRecord(record="", pid=1, endpoints=[], palace={}).as_json(), "new"]), json_values
    )
)
def test_any_object(raw: dict[str, Any]) -> None:
    assert isinstance(decode(json.dumps({**GOOD, **raw}).encode()), DiscoveryRecord | BadRecord)


@given(records, st.data())
def test_half_written(record: DiscoveryRecord, data: st.DataObject) -> None:
    whole = encode(record)
    cut = data.draw(st.integers(0, len(whole) - 3))
    assert isinstance(decode(whole[:cut]), BadRecord)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"{} {}", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"9" * 6000, "not JSON"),
        (b"\xff", "not JSON"),
        (b" " * MAX_BYTES + b"{}", "longer than"),
    ],
)
def test_reasons_are_named(data: bytes, reason: str) -> None:
    found = decode(data)
    assert isinstance(found, BadRecord)
    assert reason in found.reason
    assert not found.absent


def test_absent_is_its_own_case() -> None:
    found = decode(None)
    assert isinstance(found, BadRecord)
    assert found.absent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", None),
        ("schema", 0),
        ("schema", True),
        ("pid", 0),
        ("pid", -1),
        ("pid", 2**31),
        ("pid", 10**400),
        ("pid", "77"),
        ("pid", True),
        ("endpoints", []),
        ("endpoints", "unix:/s"),
        ("endpoints", [7, ""]),
        ("palace", None),
        ("palace", {"path": 7}),
    ],
)
def test_what_a_record_needs(field: str, value: object) -> None:
    assert isinstance(record_from(**{field: value}), BadRecord)


def test_a_wrong_optional_field_is_as_good_as_none() -> None:
    found = record_from(epoch="x", wire=-1, token=7, capabilities={}, started_at=float("nan"), host=[], start=7)
    assert isinstance(found, DiscoveryRecord)
    assert (found.epoch, found.wire, found.token, found.capabilities, found.started_at) == (0, 0, None, [], 0.0)
    assert (found.host, found.start) == ("", "")


def test_the_longest_record_is_read() -> None:
    assert isinstance(decode(json.dumps(GOOD).encode().ljust(MAX_BYTES)), DiscoveryRecord)


@pytest.mark.parametrize("started_at", [-1, 1e12, True, "5", None])
def test_an_impossible_time_counts_as_none(started_at: object) -> None:
    found = record_from(started_at=started_at)
    assert isinstance(found, DiscoveryRecord)
    assert found.started_at == 0.0


def test_a_later_schema_still_tells_where_to_dial() -> None:
    found = record_from(schema=9, novelty={"a": 1}, endpoints=["quic:x", "unix:/s"])
    assert isinstance(found, DiscoveryRecord)
    assert found.endpoints == ["quic:x", "unix:/s"]


def test_only_the_same_id_is_ones_own() -> None:
    data = json.dumps(GOOD).encode()
    assert is_own(data, "ab")
    assert not is_own(data, "cd")
    assert not is_own(data, "")
    assert not is_own(json.dumps({**GOOD, "record": ""}).encode(), "")
    assert not is_own(b"junk", "ab")


@pytest.mark.parametrize(
    ("boot", "host", "pidns", "local", "expected"),
    [
        ("b1", "h2", "n", False, True),  # this boot: a container of the same kernel
        ("b2", "h1", "n", False, True),  # rebooted
        ("b2", "h2", "n", True, True),  # rebooted and renamed, on a disk of our own
        ("b2", "h2", "n", False, False),
        ("b2", "h2", "n", None, False),  # in doubt
        ("", "", "n", None, False),  # nothing known here proves nothing
        ("b2", "h2", "", None, False),  # a Mac that finds its virtual machine's record
    ],
)
def test_the_kernel_that_a_record_is_from(boot: str, host: str, pidns: str, local: bool | None, expected: bool) -> None:
    record = record_from(boot="b1", host="h1", pidns="pid:[1]")
    assert isinstance(record, DiscoveryRecord)
    assert from_this_kernel(record, boot=boot, host=host, pidns=pidns, local=local) is expected


def test_the_kernel_of_two_macs_or_of_nobody() -> None:
    record = record_from(boot="b1", host="h1", pidns="")
    assert isinstance(record, DiscoveryRecord)
    assert from_this_kernel(record, boot="b2", host="h2", pidns="", local=None)
    assert not from_this_kernel(record, boot="b2", host="h2", pidns="pid:[1]", local=None)
    blank = record_from()
    assert isinstance(blank, DiscoveryRecord)
    assert not from_this_kernel(blank, boot="", host="", pidns="pid:[1]", local=None), "two blanks are not equal facts"
