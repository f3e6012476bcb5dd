"""Clients over HTTP as the protocol sees them: one request each, no connection between two, and no admin methods."""

from __future__ import annotations

import pytest

from mempalace_broker import errors
from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.protocol.hello import HELLO, OUTCOMES, RESTART, STATUS, STOP
from tests.unit.broker.machine.dialogue import KG_QUERY, SEARCH, Talk, call, request


@pytest.mark.parametrize("method", [HELLO, OUTCOMES, STATUS, STOP, RESTART, "broker/guest"])
def test_no_method_of_the_brokers_own_is_for_them(method: str) -> None:
    talk = Talk()
    talk.protocol.opened(1, talk.now, origin=Origin.USER, agent="curl")
    talk.says(1, request(1, method))
    assert talk.code(1) == errors.METHOD_NOT_FOUND


def test_they_are_named_and_not_counted_as_sessions() -> None:
    talk = Talk()
    talk.protocol.opened(1, talk.now, origin=Origin.GUEST, agent="curl")
    talk.says(1, call(1, KG_QUERY))
    assert talk.protocol.sessions[1].agent == "curl"
    assert talk.protocol.counters["sessions"] == 0
    assert talk.protocol.counters["calls"] == 1


def test_many_requests_of_one_client_delay_another_ones_by_one() -> None:
    talk = Talk()
    for conn in range(1, 129):
        talk.protocol.opened(conn, talk.now, origin=Origin.GUEST, agent="curl", flow=1)
        talk.says(conn, call(conn, SEARCH))
    talk.opens(200)
    talk.says(200, call(200, SEARCH))
    assert talk.ids() == [1]
    for done, then in ((1, 2), (2, 200), (200, 3)):
        talk.done(talk.frame(done))
        assert talk.ids() == [then]


@pytest.mark.parametrize(("method", "again"), [(STOP, False), (RESTART, True)])
def test_whoever_restarts_says_that_another_one_comes(method: str, again: bool) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(1, method))
    assert [effect.again for effect in talk.seen if isinstance(effect, fx.Retire)] == [again]


def test_the_home_of_a_client_is_bounded() -> None:
    talk = Talk()
    for conn, home in enumerate(["/home/me", "/" * 5000, 3, "/a\0b"], 1):
        talk.opens(conn)
        greeting = {"session": f"s{conn}", "connection": 1, "wire": 1, "home": home}
        talk.says(conn, request(1, HELLO, **greeting))
    assert [session.home for session in talk.protocol.sessions.values()][:1] == ["/home/me"]
    assert not any(session.home for session in list(talk.protocol.sessions.values())[1:])
