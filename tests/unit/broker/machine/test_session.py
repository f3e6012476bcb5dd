from __future__ import annotations

import pytest

from mempalace_broker.broker.machine.session import Session, is_name
from tests.unit.broker.machine.test_replay import call_of


@pytest.mark.parametrize("name", ["a", "0", "A" * 64])
def test_good_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a\n", "a.b", "é", "٣", None, 7, b"a"])
def test_names_that_have_no_place_in_the_journal(name: object) -> None:
    assert not is_name(name)


def test_names_of_writes_tell_lines_connections_and_elements_apart() -> None:
    session = Session(3, 0.0, 1, "raw")
    session.ordinal = 4
    assert session.key() == "raw3.0.4"
    session.greet("s", 2, "c", 9)
    assert session.key() == "s.2.4"
    assert session.key(1) == "s.2.4.1"
    assert session.key_of(1, 4) == "s.1.4"
    assert (session.greeted, session.client, session.pid) == (True, "c", 9)


def test_open_calls_are_counted_by_id() -> None:
    session = Session(3, 0.0, 1, "raw")
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
