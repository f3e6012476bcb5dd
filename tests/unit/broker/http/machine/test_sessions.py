"""Ids that prove themselves, and answers that wait for a client to come back."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.broker.http.machine import sessions
from mempalace_broker.broker.http.machine.sessions import MOST_KEPT_BYTES, MOST_SESSIONS, MOST_STREAMS, HttpSessions

TOKEN, OTHER = "c0" * 32, "d1" * 32


def some(first: int = 0) -> HttpSessions:
    numbers = itertools.count(first)
    return HttpSessions(lambda: next(numbers).to_bytes(16, "big"))


def test_the_next_broker_knows_the_ids_of_the_one_before() -> None:
    session = some().start(TOKEN, "agent")
    found = some(100).find(session.id, TOKEN)
    assert found is not None
    assert found.id == session.id


def test_within_a_broker_the_name_stays() -> None:
    all_ = some()
    session = all_.start(TOKEN, "agent")
    assert all_.find(session.id, TOKEN) is session


@given(st.text(max_size=80))
def test_no_other_id_is_known(text: str) -> None:
    assert some().find(text, TOKEN) is None


def test_an_id_is_for_one_token() -> None:
    all_ = some()
    assert all_.find(all_.start(TOKEN, "").id, OTHER) is None


def test_an_ended_session_is_unknown_and_its_answers_are_gone() -> None:
    all_ = some()
    session, other = all_.start(TOKEN, ""), all_.start(TOKEN, "")
    stream = all_.open_stream(session)
    all_.deliver(stream, [b"late"])
    all_.end(session)
    assert all_.find(session.id, TOKEN) is None
    assert all_.stream(stream.id, session) is None
    assert all_.find(other.id, TOKEN) is other
    for _ in range(MOST_SESSIONS + 1):
        all_.end(all_.start(TOKEN, ""))
    assert len(all_) == 1


def test_of_too_many_sessions_the_oldest_idle_one_loses_its_name() -> None:
    all_ = some()
    busy = all_.start(TOKEN, "busy")
    busy.calls.add(1)
    idle = all_.start(TOKEN, "idle")
    for _ in range(MOST_SESSIONS):
        all_.start(TOKEN, "")
    assert len(all_) == MOST_SESSIONS
    assert all_.find(busy.id, TOKEN) is busy
    again = all_.find(idle.id, TOKEN)
    assert again is not None  # it goes on all the same
    assert again.agent == ""


def test_an_answer_goes_to_whoever_listens() -> None:
    all_ = some()
    session = all_.start(TOKEN, "")
    stream = all_.open_stream(session)
    heard: list[list[bytes]] = []
    stream.listener = heard.append
    all_.deliver(stream, [b"one", b"two"])
    assert heard == [[b"one", b"two"]]
    assert all_.stream(stream.id, session) is None


def test_an_answer_that_nobody_heard_is_kept_for_its_session_alone() -> None:
    all_ = some()
    session, other = all_.start(TOKEN, ""), all_.start(TOKEN, "")
    stream = all_.open_stream(session)
    all_.deliver(stream, [b"late"])
    assert all_.stream(stream.id, other) is None
    assert all_.stream("nonsense", session) is None
    assert all_.stream(f"{stream.id}.1", session) is stream
    assert stream.answer == [b"late"]
    all_.delivered(stream)
    assert all_.stream(stream.id, session) is None


def test_kept_answers_are_bounded() -> None:
    all_ = some()
    session = all_.start(TOKEN, "")
    under_way = all_.open_stream(session)
    streams = [all_.open_stream(session) for _ in range(MOST_STREAMS + 5)]
    for stream in streams:
        all_.deliver(stream, [b"x"])
    left = [stream for stream in streams if all_.stream(stream.id, session)]
    assert len(left) == MOST_STREAMS - 1
    assert left[-1] is streams[-1]
    assert all_.stream(under_way.id, session) is under_way
    all_.deliver(under_way, [bytes(MOST_KEPT_BYTES - sessions.MOST_STREAMS)])
    assert all_.stream(under_way.id, session) is under_way
    last = all_.open_stream(session)
    all_.deliver(last, [bytes(MOST_KEPT_BYTES // 2)])
    assert all_.stream(under_way.id, session) is None
    assert all_.stream(last.id, session) is last
