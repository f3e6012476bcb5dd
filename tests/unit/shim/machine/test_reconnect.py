from __future__ import annotations

from mempalace_broker.errors import NOT_EXECUTED, OTHER_PALACE
from mempalace_broker.shim.machine.pending_requests import NO_DEADLINE
from mempalace_broker.shim.machine.reconnect import MAX_PAUSE_S, SHORT_S, ReconnectPolicy


def test_failures_are_told_once_and_pauses_grow_to_a_bound() -> None:
    reconnect = ReconnectPolicy()
    now, pauses = 100.0, []
    for _ in range(20):
        reconnect.failed(OTHER_PALACE, "no", now)
        pauses.append(reconnect.retry_at - now)
        assert reconnect.hopeless(now)
        now = reconnect.retry_at
        assert not reconnect.hopeless(now), "it is time to try again"
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_S
    assert reconnect.notices == ["no"]
    assert reconnect.hopeless_since == 100.0


def test_a_welcome_clears_every_failure() -> None:
    reconnect = ReconnectPolicy()
    assert not reconnect.tried
    reconnect.failed(OTHER_PALACE, "no", 1.0)
    reconnect.opened(2.0)
    reconnect.welcomed()
    assert (reconnect.why, reconnect.code, reconnect.hopeless_since) == ("", NOT_EXECUTED, NO_DEADLINE)
    assert reconnect.notices == ["no", "connected to the broker"]
    assert reconnect.tried


def test_a_connection_that_lived_is_replaced_at_once_however_often() -> None:
    reconnect = ReconnectPolicy()
    for n in range(10):
        now = n * 100.0
        reconnect.opened(now)
        reconnect.welcomed()
        reconnect.lost("killed", now + 50, welcomed=True)
        assert reconnect.retry_at <= now + 50


def test_connections_that_die_young_are_not() -> None:
    reconnect = ReconnectPolicy()
    pauses = []
    for _ in range(12):
        reconnect.opened(5.0)
        reconnect.lost("killed", 5.0, welcomed=False)
        pauses.append(reconnect.retry_at - 5.0)
    assert pauses[0] < 0, "the first time may be a restart"
    assert 0 < pauses[1] < 0.2
    assert pauses[-1] == MAX_PAUSE_S
    assert len(reconnect.notices) == 1


def test_only_a_connection_after_another_one_or_after_a_failure_is_news() -> None:
    reconnect = ReconnectPolicy()
    reconnect.opened(0.0)
    reconnect.welcomed()
    assert reconnect.notices == []
    reconnect.lost("killed", 100.0, welcomed=True)
    reconnect.opened(100.0)
    reconnect.welcomed()
    assert reconnect.notices == ["connection to the broker lost: killed", "connected to the broker"]


def test_a_connection_is_short_below_five_seconds() -> None:
    for lived, pauses in ((SHORT_S - 0.1, True), (SHORT_S, False)):
        reconnect = ReconnectPolicy()
        for _ in range(2):
            reconnect.opened(100.0)
            reconnect.lost("killed", 100.0 + lived, welcomed=False)
        assert (reconnect.retry_at > 100.0 + lived) is pauses
        assert reconnect.tried is pauses


def test_why_no_broker_can_be_reached_is_not_hidden_by_a_connection_that_closes_at_once() -> None:
    reconnect = ReconnectPolicy()
    reconnect.failed(OTHER_PALACE, "another palace", 1.0)
    reconnect.opened(2.0)
    reconnect.lost("closed", 2.0, welcomed=False)
    assert (reconnect.code, reconnect.why, reconnect.notices) == (OTHER_PALACE, "another palace", ["another palace"])
    alone = ReconnectPolicy()
    alone.opened(2.0)
    alone.lost("closed", 2.0, welcomed=False)
    assert (alone.code, alone.why) == (NOT_EXECUTED, "the broker closed the connection at once: closed.")
