from __future__ import annotations

import pytest

from mempalace_broker.broker.machine.session import Session, is_name, is_secret
from tests.unit.broker.machine.dialogue import Talk
from tests.unit.broker.machine.test_replay import call_of


@pytest.mark.parametrize("name", ["a", "0", "A" * 64])
def test_good_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a\n", "a.b", "é", "٣", None, 7, b"a"])
def test_bad_names(name: object) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(("secret", "good"), [("a" * 32, True), ("A" * 64, True), ("a" * 31, False), (7, False)])
def test_a_secret_is_long_enough_and_not_too_long(secret: object, good: bool) -> None:
    assert is_secret(secret) is good


def test_names_of_writes_tell_lines_connections_and_elements_apart() -> None:
    session = Session(3, 0.0, 1, "raw3")
    session.ordinal = 4
    assert session.key() == "raw3.0.4"
    session.greet("c", 9)
    assert session.key() == "raw3.0.4"
    session.bind("s", "1" * 32, 2)
    assert (session.greeted, session.client, session.pid) == (True, "c", 9)
    again = Session(5, 0.0, 1, "raw")
    again.bind("s", "1" * 32, 3)
    keys = [session.key(), session.key(1), session.key_of(1, 4), session.key_of(2, 5), again.key_of(3, 4)]
    assert len({len(key) for key in keys}) == 1
    assert len(set(keys)) == len(keys)
    assert again.key_of(2, 4) == session.key()


@pytest.mark.parametrize("home", ["/home/\ud800", "/home/\0", "/home/\n", "/" * 5000, 7, None])
def test_a_home_that_no_folder_can_have_is_none(home: object) -> None:
    talk = Talk()
    talk.greets(1, home=home)
    assert talk.protocol.sessions[1].home == ""
    talk.greets(2, session="other", home="/home/ümlaut x")
    assert talk.protocol.sessions[2].home == "/home/ümlaut x"


def test_what_status_shows_of_a_session_does_not_lead_to_its_keys() -> None:
    session, other = Session(3, 0.0, 1, "raw3"), Session(4, 0.0, 1, "raw")
    session.bind("s", "1" * 32, 2)
    other.bind("s", "2" * 32, 2)
    assert len(session.public) == 8
    assert session.public != other.public
    assert session.key_of(1, 4) != other.key_of(1, 4)
    assert not session.is_of("2" * 32)
    assert session.is_of("1" * 32)


def test_the_agents_name_is_fit_for_a_terminal() -> None:
    session = Session(3, 0.0, 1, "raw3")
    session.introduce({"name": "\x1b[2Jx" + "y" * 100})
    assert session.agent.isprintable()
    assert len(session.agent) == 64


def test_open_calls_are_counted_by_id() -> None:
    session = Session(3, 0.0, 1, "raw3")
    one, two = call_of("mempalace_search"), call_of("mempalace_search")
    session.add("k", one)
    session.add("k", two)
    assert session.open_calls == 2
    session.remove("k", one)
    session.remove("k", one)
    session.remove("other", two)
    assert session.open_calls == 1
    session.remove("k", two)
    assert session.by_id == {}
