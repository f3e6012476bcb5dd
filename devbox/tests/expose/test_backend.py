"""The messages about the server behind the relay."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.expose.backend import Backend, State

ABSENT, LISTENS, STUCK = State.ABSENT, State.LISTENS, State.STUCK


def test_news_is_told_once() -> None:
    backend = Backend(9000)
    said = [backend.observe(state) for state in (ABSENT, ABSENT, LISTENS, LISTENS, STUCK, STUCK, LISTENS, ABSENT)]
    assert [bool(line) for line in said] == [True, False, True, False, True, False, True, True]
    assert "nothing listens on 127.0.0.1:9000 yet: type `/studio --no-browser --port 9000` in pi" in said[0]
    assert said[2] == said[6] == "Studio listens on 127.0.0.1:9000."
    assert "is stuck: it accepts no connection" in said[4]
    assert "any more" in said[7]


@given(st.lists(st.sampled_from(State), min_size=1))
def test_exactly_the_changes_are_news(looks: list[State]) -> None:
    backend = Backend(1)
    news = [bool(backend.observe(state)) for state in looks]
    assert news == [True, *(one != other for one, other in itertools.pairwise(looks))]
