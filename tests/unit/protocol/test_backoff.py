"""Pauses that grow, stay bounded, and differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.protocol.backoff import backoff


@given(st.integers(-5, 10**6), st.floats(0, 1, exclude_max=True), st.floats(1e-3, 10), st.floats(1, 1000))
def test_bounds(attempt: int, draw: float, base: float, factor: float) -> None:
    cap = base * factor
    pause = backoff(attempt, base=base, cap=cap, rng=lambda: draw)
    assert base / 2 <= pause <= cap


def test_doubles_up_to_the_cap() -> None:
    pauses = [backoff(n, base=0.01, cap=0.2, rng=lambda: 0.999999) for n in range(8)]
    assert [round(pause, 3) for pause in pauses] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2]


def test_half_is_drawn_by_lot() -> None:
    assert backoff(9, base=1, cap=8, rng=lambda: 0.0) == 4
    assert backoff(9, base=1, cap=8, rng=lambda: 0.5) == 6
