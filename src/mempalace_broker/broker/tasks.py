"""Creates tasks, and nothing else does: each is named and kept alive, and its failure is reported."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..system.clock import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..system.clock import Clock

_LOOK_S = 0.005


class Tasks:
    """The tasks of one owner. `on_error(name, exc)` is called for every task that raised."""

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._on_error = on_error
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._on_error(task.get_name(), exc)

    def cancel_all(self) -> None:
        """Cancel all of them."""
        for task in list(self._running):
            task.cancel()


async def wait_until(done: Callable[[], bool], seconds: float, clock: Clock) -> None:
    """Wait for what callbacks of several owners bring about, at most so long."""
    deadline = Deadline.after(clock, seconds)
    while not done() and not deadline.expired:  # noqa: ASYNC110 - nothing to await, and bounded
        await asyncio.sleep(_LOOK_S)
