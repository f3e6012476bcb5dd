"""Leases in words: who holds the palace, and what helps the broker that was refused."""

from __future__ import annotations

import pytest

from mempalace_broker.lease.machine.acquire import Acquired
from mempalace_broker.lease.machine.describe import describe_holder, describe_leases, describe_refusal
from mempalace_broker.lease.machine.lease import LeaseState, Listing, NodeKind
from mempalace_broker.lease.machine.record import HolderId, LeaseRecord

HOLDER = HolderId(kind=NodeKind.FOREIGN, host="box", boot="0123456789ab", pid=7, since=1.0)
LEASE = LeaseRecord(4, LeaseState.ACTIVE, 9, True, HOLDER)


def test_without_a_lease_there_is_nothing_to_describe() -> None:
    assert describe_leases(Listing(), ()) == {
        "epoch": 0, "state": None, "kind": None, "since": None, "handover_requests": 0, "lower": [],
    }  # fmt: skip


def test_the_highest_lease_is_described_and_of_the_lower_ones_those_that_are_open() -> None:
    released = LEASE._replace(epoch=1, state=LeaseState.RELEASED)
    gone = LEASE._replace(epoch=2)
    silent = LEASE._replace(epoch=3, busy=False)
    listing = Listing((1, 2, 3, 4), frozenset({(2, 9)}), frozenset({4}))
    found = describe_leases(listing, [LEASE, released, silent, gone])
    lower = found.pop("lower")
    assert found == {
        "epoch": 4, "state": LeaseState.ACTIVE, "kind": NodeKind.FOREIGN, "host": "box", "boot": "01234567", "pid": 7,
        "since": 1.0, "sequence": 9, "busy": True, "open": True, "handover_requests": 1,
    }  # fmt: skip
    assert [(lease["epoch"], lease["open"], lease["busy"]) for lease in lower] == [(3, True, False)]
    assert describe_leases(listing, [released])["open"] is False


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (HOLDER, "a broker on a container or virtual machine (box, boot 01234567, pid 7, since "),
        (HOLDER._replace(host=""), "(unnamed, boot 01234567, "),
        (HOLDER._replace(boot="", kind=NodeKind.HOST), "a broker on the palace's own machine (box, boot unknown, "),
        (HolderId(), "an unknown broker (epoch 4)"),
    ],
)
def test_a_holder_is_named_as_far_as_it_is_known(holder: HolderId, words: str) -> None:
    assert words in describe_holder(LEASE._replace(holder=holder))


HELD_BY_HOST = LEASE._replace(holder=HOLDER._replace(kind=NodeKind.HOST))


@pytest.mark.parametrize(
    ("outcome", "lease", "why", "hint"),
    [
        (Acquired.HANDOVER, None, "asked for a handover", "use the host's broker"),
        (Acquired.CONTENDED, None, "again and again", "try again"),
        (Acquired.CONTENDED, LEASE, "again and again", "try again"),
        (Acquired.HELD, LEASE, "which is alive", "use it from there"),
        (Acquired.HELD, HELD_BY_HOST, "which is alive", "reach that broker by ssh or tcp"),
        (Acquired.HELD, LEASE._replace(state=LeaseState.ACQUIRING), "which is alive", "try again in a few seconds"),
        (Acquired.IN_DOUBT, LEASE, "silent for 5 s and more, and stopped in the middle of a call", "take-over --yes"),
        (Acquired.IN_DOUBT, LEASE._replace(state=LeaseState.UNREADABLE), "that can't be read", "take-over --yes"),
    ],
)
def test_a_refusal_says_who_is_in_the_way_and_what_helps(
    outcome: Acquired, lease: LeaseRecord | None, why: str, hint: str
) -> None:
    said, helps = describe_refusal(outcome, lease, "/p", 5.0)
    assert "/p" in said
    assert why in said
    assert hint in helps
