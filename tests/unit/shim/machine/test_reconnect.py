from __future__ import annotations

from mempalace_broker.errors import NOT_EXECUTED, OTHER_PALACE
from mempalace_broker.shim.machine.pending_request import NEVER
from mempalace_broker.shim.machine.reconnect import MAX_PAUSE_S, Contact


def test_failures_are_told_once_and_pauses_grow_to_a_bound() -> None:
    contact = Contact()
    now, pauses = 100.0, []
    for _ in range(20):
        contact.failed(OTHER_PALACE, "no", now)
        pauses.append(contact.retry_at - now)
        assert contact.hopeless(now)
        now = contact.retry_at
        assert not contact.hopeless(now), "it is time to try again"
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_S
    assert contact.notices == ["no"]
    assert contact.hopeless_since == 100.0


def test_a_welcome_mends_everything() -> None:
    contact = Contact()
    assert not contact.tried
    contact.failed(OTHER_PALACE, "no", 1.0)
    contact.opened(2.0)
    contact.welcomed()
    assert (contact.why, contact.code, contact.hopeless_since) == ("", NOT_EXECUTED, NEVER)
    assert contact.notices == ["no", "connected to the broker"]
    assert contact.tried


def test_a_connection_that_lived_is_replaced_at_once_however_often() -> None:
    contact = Contact()
    for n in range(10):
        now = n * 100.0
        contact.opened(now)
        contact.welcomed()
        contact.lost("killed", now + 50, welcomed=True)
        assert contact.retry_at <= now + 50


def test_connections_that_die_young_are_not() -> None:
    contact = Contact()
    pauses = []
    for _ in range(12):
        contact.opened(5.0)
        contact.lost("killed", 5.0, welcomed=False)
        pauses.append(contact.retry_at - 5.0)
    assert pauses[0] < 0, "the first time may be a restart"
    assert 0 < pauses[1] < 0.2
    assert pauses[-1] == MAX_PAUSE_S
    assert len(contact.notices) == 1
