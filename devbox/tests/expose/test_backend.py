"""The messages about the server behind the relay."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pi_devbox.expose.backend import Backend


def test_news_is_told_once() -> None:
    backend = Backend(9000)
    said = [backend.observe(listens) for listens in (False, False, True, True, False, False, True)]
    assert [bool(line) for line in said] == [True, False, True, False, True, False, True]
    assert "nothing listens on 127.0.0.1:9000 yet: type `/studio --no-browser --port 9000` in pi" in said[0]
    assert said[2] == said[6] == "Studio listens on 127.0.0.1:9000."
    assert "any more" in said[4]


@given(st.lists(st.booleans(), min_size=1))
def test_exactly_the_changes_are_news(looks: list[bool]) -> None:
    backend = Backend(1)
    news = [bool(backend.observe(listens)) for listens in looks]
    assert news == [True, *(one != other for one, other in itertools.pairwise(looks))]
