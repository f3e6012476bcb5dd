"""Clocks that can be handed in, deadlines that travel."""

from __future__ import annotations

from mempalace_broker.system.clock import Clock, Deadline, fraction
from tests.fakes.clock import FakeClock


def test_a_deadline_runs_down_and_stays_at_zero() -> None:
    clock = FakeClock()
    deadline = Deadline.after(clock, 2.0)
    assert (deadline.remaining(), deadline.expired) == (2.0, False)
    clock.move(1.5)
    assert (deadline.remaining(), deadline.expired) == (0.5, False)
    clock.move(9)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


def test_the_real_clock_and_chance() -> None:
    clock = Clock()
    before = clock.monotonic()
    clock.sleep(0.001)
    assert clock.monotonic() > before
    assert clock.wall() > 1.7e9
    draws = {fraction() for _ in range(50)}
    assert len(draws) > 1
    assert all(0 <= draw < 1 for draw in draws)
