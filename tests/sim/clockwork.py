"""Time of the simulated world, what happens in it, and actors that can be frozen or killed."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[], None]


class Loop:
    """Steps in order of their time; seconds. Nothing runs at once, so a seed is a history."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.jumped = 0.0
        self._heap: list[tuple[float, int, Step]] = []
        self._count = 0

    def after(self, seconds: float, step: Step) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), self._count, step))

    def jump(self, seconds: float) -> None:
        """The machine slept: everything that was due meanwhile comes late."""
        self.now += seconds
        self.jumped += seconds

    def run(self, until: float, done: Callable[[], bool], most: int = 200_000) -> None:
        """Run until that time, or until `done` says so; at most so many steps: a world that spins is a failure."""
        while self._heap and not done():
            if self._heap[0][0] > until:
                return
            when, _, step = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            most -= 1
            assert most, f"the world spins at {self.now}"
            step()


class Actor:
    """Something that can be frozen (SIGSTOP) and killed; what reaches it meanwhile waits, or is lost."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.alive = True
        self.frozen_s = 0.0
        self._frozen = False
        self._held: list[Step] = []

    def deliver(self, step: Step) -> None:
        """Let a step of this actor happen: now, when it thaws, or never."""
        if self._frozen:
            self._held.append(step)
        elif self.alive:
            step()

    def after(self, seconds: float, step: Step) -> None:
        self.loop.after(seconds, lambda: self.deliver(step))

    def freeze(self, seconds: float) -> None:
        if self.alive and not self._frozen:
            self._frozen = True
            self.frozen_s += seconds
            self.loop.after(seconds, self._thaw)

    def _thaw(self) -> None:
        self._frozen = False
        held, self._held = self._held, []
        for step in held:
            self.deliver(step)
