from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.lease.machine.describe import describe_holder
from mempalace_broker.lease.machine.lease import LeaseState, NodeKind
from mempalace_broker.lease.machine.record import (
    SIZE,
    WRITTEN_STATES,
    HolderId,
    LeaseRecord,
    decode,
    encode,
    proven_dead,
)

ME = HolderId(NodeKind.HOST, "mac", "boot-1", "pid:[1]", 42, "1:2", 1_700_000_000.5, "aa")


@given(
    st.integers(0, 2**63),
    st.sampled_from(WRITTEN_STATES),
    st.integers(0, 2**63),
    st.booleans(),
    st.text(max_size=200).map(str),
)
def test_what_is_written_is_read(epoch: int, state: LeaseState, sequence: int, busy: bool, host: str) -> None:
    writer = ME._replace(host=host[:10])
    data = encode(epoch, state, sequence, busy=busy, holder=writer.encode())
    assert len(data) == SIZE
    assert decode(data, epoch) == LeaseRecord(epoch, state, sequence, busy, writer)


@given(st.binary(max_size=2 * SIZE))
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert decode(data, 7).state in (LeaseState.EMPTY, LeaseState.UNREADABLE)


@given(st.integers(1, SIZE - 1))
def test_a_mixture_of_two_records_is_unreadable(cut: int) -> None:
    old = encode(7, LeaseState.ACTIVE, 1, busy=False, holder=ME.encode())
    new = encode(7, LeaseState.ACTIVE, 2, busy=True, holder=ME.encode())
    mixed = new[:cut] + old[cut:]
    assert mixed in (old, new) or decode(mixed, 7).state == LeaseState.UNREADABLE


@pytest.mark.parametrize("data", [b"", bytes(SIZE), bytes(10)])
def test_a_name_without_a_record_was_never_busy(data: bytes) -> None:
    assert decode(data, 7) == LeaseRecord(7, LeaseState.EMPTY)


def test_a_record_of_another_epoch_is_unreadable() -> None:
    assert decode(encode(7, LeaseState.RELEASED, 1, busy=False, holder=ME.encode()), 8).state == LeaseState.UNREADABLE


def test_a_long_host_name_is_cut() -> None:
    assert (
        decode(encode(7, LeaseState.ACTIVE, 1, busy=False, holder=ME._replace(host="h" * 500).encode()), 7).holder.host
        == "h" * 64
    )


NEXT = ME._replace(pid=43, nonce="bb")


@pytest.mark.parametrize(
    ("theirs", "me", "local", "dead"),
    [
        (ME, NEXT, True, True),  # the lock that it had is ours
        (ME, NEXT._replace(lock="1:3"), True, False),  # another lock: a FUSE mount, or the palace was put back
        (ME, NEXT._replace(lock=""), True, False),
        (ME._replace(palace="1:8"), NEXT._replace(lock="1:3", palace="1:9"), True, True),  # it came with a copy
        (ME._replace(palace="1:8"), NEXT._replace(lock="1:3", palace="1:9"), False, False),  # another mount, perhaps
        (ME._replace(palace="1:8"), NEXT._replace(lock="1:3", palace="1:8"), True, False),  # the lock was put back
        (ME._replace(palace="1:8"), NEXT._replace(lock="1:3"), True, False),
        (ME._replace(palace="1:8", kind=NodeKind.FOREIGN), NEXT._replace(lock="1:3", palace="1:9"), True, False),
        (ME, NEXT._replace(boot="boot-2"), True, True),  # this host, started anew
        (ME, NEXT._replace(boot="boot-2"), False, True),  # a Mac knows itself by name
        (ME, NEXT._replace(boot="boot-2", host="other"), False, False),
        (ME._replace(kind=NodeKind.FOREIGN), NEXT._replace(boot="boot-2"), True, False),  # its machine may be paused
        (ME, NEXT._replace(boot="boot-2", kind=NodeKind.FOREIGN), False, False),
        (
            ME._replace(kind=NodeKind.FOREIGN),
            NEXT._replace(kind=NodeKind.FOREIGN),
            False,
            True,
        ),  # two containers of one kernel
        (ME._replace(boot=""), NEXT, True, False),
        (ME, ME, True, False),
    ],
)
def test_only_facts_prove_a_death(theirs: HolderId, me: HolderId, local: bool, dead: bool) -> None:
    assert proven_dead(LeaseRecord(7, LeaseState.ACTIVE, 1, True, theirs), me, local=local) is dead


def forged(body: bytes) -> LeaseRecord:
    """What is read from a record with this body and a good checksum."""
    return decode(encode(5, LeaseState.ACTIVE, 1, busy=True, holder=body), 5)


@given(st.binary(max_size=SIZE - 40))
def test_any_body_is_a_record_that_can_be_described(body: bytes) -> None:
    lease = forged(body)
    assert isinstance(describe_holder(lease), str)
    proven_dead(lease, ME, local=True)


values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.just([[]])
)


@given(st.dictionaries(st.sampled_from(HolderId._fields), values), st.sampled_from(list(HolderId._fields)), values)
def test_any_values_are_a_record_that_can_be_described(raw: dict[str, Any], name: str, value: Any) -> None:
    whole = {**ME._asdict(), name: value}
    for fields in (raw, whole):
        lease = forged(json.dumps(fields).encode()[: SIZE - 40])
        holder = lease.holder
        assert describe_holder(lease).isprintable()
        assert all(isinstance(getattr(holder, text), str) for text in ("host", "boot", "pidns", "lock", "nonce"))
        assert type(holder.pid) is int
        assert 0 <= holder.pid < 2**31
        assert 0 <= holder.since < 2**33


@pytest.mark.parametrize("pid", [0, 2**31 - 1])
def test_the_smallest_and_the_largest_pid(pid: int) -> None:
    assert forged(ME._replace(pid=pid).encode()).holder.pid == pid


@pytest.mark.parametrize("number", ["1e999", "-1", "9" * 300, "2147483648", "1.5", "true", "NaN", '"1"', "null"])
def test_an_impossible_pid_is_unreadable(number: str) -> None:
    body = ME.encode().replace(b'"pid":42', f'"pid":{number}'.encode())
    assert forged(body).state is LeaseState.UNREADABLE


@pytest.mark.parametrize("number", ["1e300", "1e999", "-1", "NaN", "9" * 200])
def test_an_impossible_time_is_left_out(number: str) -> None:
    body = ME.encode().replace(b'"since":1700000000.5', f'"since":{number}'.encode())
    assert forged(body).holder.since == 0.0


@pytest.mark.parametrize("value", ["true", '"1"', "null"])
def test_a_time_that_is_not_a_number_makes_the_record_unreadable(value: str) -> None:
    body = ME.encode().replace(b'"since":1700000000.5', f'"since":{value}'.encode())
    assert forged(body).state is LeaseState.UNREADABLE
