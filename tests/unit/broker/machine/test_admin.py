"""Who may call the admin methods of a broker."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker import errors
from mempalace_broker.broker.machine import effects as fx
from mempalace_broker.broker.machine.lifecycle import BrokerState
from mempalace_broker.broker.machine.session import Origin
from mempalace_broker.protocol.hello import GUEST, HELLO, OPEN, hello_request
from mempalace_broker.protocol.palace import FileView
from tests.unit.broker.machine.dialogue import KG_QUERY, PALACE, SECRET, Talk, call, request


def guest() -> Talk:
    """A broker with a guest on connection 1."""
    talk = Talk()
    talk.opens(1, origin=Origin.GUEST)
    return talk


@pytest.mark.parametrize("method", ["broker/stop", "broker/restart"])
@pytest.mark.parametrize("mode", ["drain", "now"])
def test_a_guest_does_not_stop_the_broker(method: str, mode: str) -> None:
    talk = guest()
    talk.says(1, request(1, method, mode=mode))
    error = talk.answer(1)["error"]
    assert error["code"] == errors.NOT_ALLOWED
    assert f"mempalace-broker {method.removeprefix('broker/')}" in error["message"]
    assert talk.protocol.state == BrokerState.SERVING


def test_nor_in_a_batch_or_as_a_notification_or_after_hello() -> None:
    talk = guest()
    hello = hello_request(session="abc", secret=SECRET, connection=1, identity=PALACE, client="test", pid=7)
    stop = {"jsonrpc": "2.0", "method": "broker/stop", "params": {"mode": "now"}}
    talk.says(1, hello, [{**stop, "id": 1}, {**stop, "id": 2}], stop)
    codes = [said.get("error", {}).get("code") for said in talk.heard(1)]
    assert codes == [None, errors.NOT_ALLOWED, errors.NOT_ALLOWED]
    assert talk.protocol.state == BrokerState.SERVING


def test_a_guest_gets_the_short_status_and_the_memory() -> None:
    talk = guest()
    talk.says(1, request(1, "broker/status"))
    assert talk.answer(1)["result"]["brief"] is True
    talk.says(1, request(2, "ping"), call(3, KG_QUERY))
    talk.done(talk.inside[0])
    assert [said["id"] for said in talk.heard(1)] == [2, 3]


def test_the_page_is_opened_by_the_host_alone() -> None:
    talk = guest()
    talk.opens(2)
    for conn in (1, 2):
        talk.says(conn, request(7, OPEN))
    assert talk.answer(1)["error"]["code"] == errors.NOT_ALLOWED
    assert [(asked.conn, asked.id) for asked in talk.seen if isinstance(asked, fx.OpenPage)] == [(2, 7)]


def test_the_host_gets_the_full_status_and_stops_the_broker() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(1, "broker/status"), request(2, "broker/stop"))
    status, stopped = talk.heard(1)
    assert "brief" not in status["result"]
    assert stopped["result"]["stopping"] is True
    assert talk.protocol.state != BrokerState.SERVING


def test_rights_are_lowered_for_good_and_hello_may_still_come_first() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(GUEST, GUEST, palace=PALACE.path))
    assert talk.answer(1)["result"] == {"origin": "guest"}
    talk.says(1, hello_request(session="abc", secret=SECRET, connection=1, identity=PALACE, client="test", pid=7))
    assert "result" in talk.answer(1)
    assert talk.protocol.sessions[1].origin is Origin.GUEST
    talk.says(1, request(2, "broker/stop"), request(3, GUEST), request(4, "broker/restart"))
    codes = [said.get("error", {}).get("code") for said in talk.heard(1)]
    assert codes == [errors.NOT_ALLOWED, None, errors.NOT_ALLOWED]


def test_a_late_word_lowers_rights_too_and_is_not_a_way_to_greet_again() -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(1, "ping"), request(2, GUEST), request(3, "broker/stop"))
    assert talk.heard(1)[-1]["error"]["code"] == errors.NOT_ALLOWED
    talk.says(1, hello_request(session="abc", secret=SECRET, connection=1, identity=PALACE, client="test", pid=7))
    assert talk.code(1) == errors.INVALID_PARAMS


@pytest.mark.parametrize("palace", ["/elsewhere", "", 7, [PALACE.path], "/x" * 5000])
def test_a_guest_of_another_palace_is_turned_away(palace: object) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(GUEST, GUEST, palace=palace), call(1, KG_QUERY))
    assert talk.code(1) == errors.OTHER_PALACE
    assert fx.Close(1, "a guest of another palace") in talk.seen
    assert not talk.inside


values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({}) | st.just(10**500)
)
ours = st.just(PALACE.as_json()) | st.just(PALACE.path) | st.dictionaries(st.sampled_from(["path", "graph"]), values)
admin = st.builds(
    lambda id_, method, params: {"jsonrpc": "2.0", "id": id_, "method": method, "params": params},
    st.integers(0, 9) | st.text(max_size=3),
    st.sampled_from(["broker/stop", "broker/restart", "broker/status", GUEST, HELLO, "broker/", "broker/Stop", "ping"]),
    st.fixed_dictionaries(
        {},
        optional={
            "palace": ours | values,
            "mode": st.just("now") | values,
            "reason": values,
            "origin": st.just("host"),
            "view": values | st.just({"boot": "b", "mnt": "m"}),
            "session": st.just("victim") | values,
            "secret": st.just("f" * 32) | values,
            "connection": st.integers(1, 9) | values,
            "wire": st.just(1) | values,
        },
    )
    | values,
)


@given(st.lists(admin, max_size=6))
def test_whatever_a_guest_asks_it_stops_nothing_and_takes_no_session(sent: list[dict[str, Any]]) -> None:
    talk = guest()
    talk.opens(2)
    talk.says(2, hello_request(session="victim", secret=SECRET, connection=1, identity=PALACE, client="c", pid=7))
    assert "result" in talk.answer(2)
    talk.says(1, *sent)
    assert talk.protocol.state == BrokerState.SERVING
    assert 1 not in talk.protocol.sessions or talk.protocol.sessions[1].origin is Origin.GUEST
    assert not [effect for effect in talk.seen if isinstance(effect, fx.Close) and effect.conn == 2]
    talk.says(2, request(9, "ping"))
    assert talk.answer(2) == {"jsonrpc": "2.0", "id": 9, "result": {}}


@pytest.mark.parametrize("method", ["broker/status", "broker/stop", "broker/restart"])
def test_who_means_another_palace_is_refused_and_stops_nothing(method: str) -> None:
    """A record or a link that somebody else made may have led there."""
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(1, method, palace={**PALACE.as_json(), "path": "/another"}))
    error = talk.answer(1)["error"]
    assert error["code"] == errors.OTHER_PALACE
    assert "Hint" not in error["message"]
    assert talk.protocol.state == BrokerState.SERVING
    talk.says(1, request(2, method, palace={**PALACE.as_json(), "backend": "other"}))
    assert "result" in talk.answer(1)


@pytest.mark.parametrize("palace", [None, "/another", 7, [], {}, {"path": 1}, {"path": "/a"}])
def test_a_palace_that_is_not_an_identity_does_no_harm(palace: object) -> None:
    talk = Talk()
    talk.opens(1)
    talk.says(1, request(1, "broker/status", palace=palace))
    said = talk.answer(1)
    assert ("error" in said) == isinstance(palace, dict)


@pytest.mark.parametrize(("origin", "told"), [(Origin.GUEST, True), (Origin.HOST, False)])
def test_only_a_guest_is_told_how_to_prove_its_folders(origin: Origin, told: bool) -> None:
    talk = Talk()
    talk.opens(1, origin=origin)
    hello = hello_request(
        session="abc", secret=SECRET, connection=1, identity=PALACE, client="test", pid=7, view=FileView("elsewhere")
    )
    talk.says(1, hello)
    assert ("proof" in talk.answer(1)["result"]["files"]) is told
