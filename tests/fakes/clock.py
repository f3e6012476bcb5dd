"""A clock that stands still until somebody sleeps on it or moves it."""

from __future__ import annotations

from mempalace_broker.system.clock import Clock


class FakeClock(Clock):
    """Time of its own: `sleep` and `move` let it pass at once. `slept`: every pause that was asked for."""

    __slots__ = ("now", "slept")

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1.7e9

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.move(seconds)

    def move(self, seconds: float) -> None:
        self.now += seconds
