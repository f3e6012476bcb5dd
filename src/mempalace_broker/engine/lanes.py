"""A lane: calls run one at a time, first in, first out.

The palace lane runs on the main thread, because mempalace's own servers touch Chroma from theirs. A long mine lets
waiting calls run between two files or parts of one, where this mempalace offers that.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, NamedTuple

Job = Callable[[bool], object]  # its argument: whether it had to wait
SHORT_S = 0.05  # how long a read may keep the reader thread from its frames
_PAUSES = 100
_NEXT_S = 0.02  # how long the mine waits for another job: the broker sends it only after the last answer


class _Entry(NamedTuple):
    job: Job
    waited: bool
    between_files: bool


class InlineReads:
    """Whether a short read of an idle lane runs on the thread that reads the broker's frames.

    That is cheaper than a thread switch, but keeps the thread from its frames. So after a read that took long, from a
    large or locked store, none does for a hundred times as long.
    """

    def __init__(self) -> None:
        self._not_before = 0.0

    def allowed(self, now: float) -> bool:
        """Whether the next one may."""
        return now >= self._not_before

    def took(self, began: float, ended: float) -> None:
        """One did."""
        if ended - began >= SHORT_S:
            self._not_before = ended + _PAUSES * (ended - began)


class JobQueue:
    """A first-in-first-out queue of jobs; the thread that calls `run` runs them."""

    def __init__(self) -> None:
        self._cond = threading.Condition()
        self._entries: deque[_Entry] = deque()
        self._busy = False
        self._closed = False

    def put(self, job: Job, *, between_files: bool = True) -> None:
        """Append a job. `between_files`: it may run between two files of the running mine."""
        with self._cond:
            if self._closed:
                return
            waits = self._busy or bool(self._entries)
            self._entries.append(_Entry(job, waits, between_files))
            self._cond.notify()

    def run(self) -> None:
        """Run jobs until `close`; the running job is finished then, waiting ones are not begun."""
        while True:
            with self._cond:
                self._cond.wait_for(lambda: self._entries or self._closed)
                if self._closed:
                    return
                entry = self._entries.popleft()
                self._busy = True
            try:
                entry.job(entry.waited)
            finally:
                with self._cond:
                    self._busy = False

    def run_between_files(self, most: int) -> bool:
        """Run at most so many of the waiting jobs that may run between two files; return whether there were any."""
        for count in range(most):
            entry = self._take_between_files(_NEXT_S if count else 0.0)
            if entry is None:
                return count > 0
            entry.job(True)
        return True

    def _take_between_files(self, patience_s: float) -> _Entry | None:
        def first() -> _Entry | None:
            return next((entry for entry in self._entries if entry.between_files), None)

        with self._cond:
            self._cond.wait_for(lambda: self._closed or first(), patience_s)
            entry = None if self._closed else first()
            if entry is not None:
                self._entries.remove(entry)
            return entry

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits. Stays true as long as only the asking thread adds jobs."""
        with self._cond:
            return not self._busy and not self._entries

    def close(self) -> None:
        """Begin no more jobs."""
        with self._cond:
            self._closed = True
            self._cond.notify_all()


def start_thread(target: Callable[[], object], name: str) -> None:
    """Start a daemon thread."""
    threading.Thread(target=target, name=name, daemon=True).start()
