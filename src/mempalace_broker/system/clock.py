"""Clocks and deadlines, which are handed in.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

import os
import time

_COUNTS_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the latter counts it on a Mac


class Clock:
    """The machine's clocks. Tests hand in a clock that jumps."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Seconds that never go back; only differences have a meaning."""
        return time.monotonic()

    def elapsed(self) -> float:
        """The same, with the time in which the machine slept."""
        return time.clock_gettime(_COUNTS_SLEEP)

    def wall(self) -> float:
        """Seconds since 1970, for people and records, never for decisions about waiting."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Pause between two looks at something that sends no event."""
        time.sleep(seconds)


def fraction() -> float:
    """A random number in [0, 1), for jitter: the `random` module is beyond the shim's import budget."""
    return int.from_bytes(os.urandom(4), "little") / 2**32


class Deadline:
    """A moment on `clock` by which a whole operation must have ended. It is handed down instead of timeouts."""

    __slots__ = ("at", "clock")

    def __init__(self, clock: Clock, at: float) -> None:
        self.clock = clock
        self.at = at

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(clock, clock.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, 0.0 once expired."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the moment has come."""
        return self.clock.monotonic() >= self.at
