"""Where calls run inside the engine: the palace lane, the free lane, the waiting place.

The palace lane is the main thread (mempalace's own servers touch Chroma from theirs); each lane is first in,
first out. A long mine lets the lane's waiting calls in between two files, where its mempalace offers that.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable

Job = Callable[[bool], None]  # takes: had it to wait?


class Lane:
    """A first-in-first-out queue of jobs, run by whichever thread calls `run`."""

    def __init__(self) -> None:
        self._cond = threading.Condition()
        self._jobs: deque[tuple[Job, bool, bool]] = deque()
        self._running = 0
        self._closed = False

    def put(self, job: Job, *, between: bool = True) -> None:
        """Append a job. `between`: it may run between two files of a mine that is under way."""
        with self._cond:
            if self._closed:
                return
            waits = bool(self._running or self._jobs)
            self._jobs.append((job, waits, between))
            self._cond.notify()

    def run(self) -> None:
        """Run jobs until `close`; a job that runs then is finished, waiting ones are not begun."""
        while True:
            with self._cond:
                while not self._jobs and not self._closed:
                    self._cond.wait()
                if self._closed:
                    return
                job, waited, _ = self._jobs.popleft()
                self._running += 1
            try:
                job(waited)
            finally:
                with self._cond:
                    self._running -= 1

    def run_waiting(self) -> bool:
        """Run the jobs that wait now and may run between two files; True if there were any."""
        with self._cond:
            ready = [entry for entry in self._jobs if entry[2]]
            self._jobs = deque(entry for entry in self._jobs if not entry[2])
        for job, _, _ in ready:
            if self._closed:
                return True
            job(True)
        return bool(ready)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits. Stays so as long as the asking thread is the only one that puts jobs in."""
        with self._cond:
            return not self._running and not self._jobs

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._closed

    def close(self) -> None:
        """Begin nothing more."""
        with self._cond:
            self._closed = True
            self._cond.notify_all()


class WaitingPlace:
    """Calls that block for long (event_wait), each on a thread; `limit` at once, the others in line."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._line: deque[Job] = deque()
        self._threads = 0

    def put(self, job: Job) -> None:
        """Run a job soon, on a thread of its own while there are fewer than `limit`."""
        with self._lock:
            if self._threads >= self._limit:
                self._line.append(job)
                return
            self._threads += 1
        threading.Thread(target=self._work, args=(job,), name="engine-wait", daemon=True).start()

    def _work(self, job: Job | None) -> None:
        waited = False
        while job is not None:
            job(waited)
            waited = True
            with self._lock:
                job = self._line.popleft() if self._line else None
                if job is None:
                    self._threads -= 1
