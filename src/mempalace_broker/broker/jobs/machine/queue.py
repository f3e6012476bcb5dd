"""The jobs of one broker: which is next, and which are forgotten."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ....protocol.jobs import is_long
from .job import JobState

if TYPE_CHECKING:
    from .job import Job

MOST_WAITING = 1000
MOST_BYTES = 32 << 20  # of the payloads of all of them
MOST_OVER = 200  # finished jobs that are kept for clients that ask
KEEP_S = 7 * 86400.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class JobQueue:
    """Jobs by id, in the order in which they came. Times of `next` and `put_back` in monotonic seconds."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._sizes: dict[str, int] = {}
        self._pauses: dict[str, float] = {}

    def add(self, job: Job, size: int) -> None:
        """Add a job. `size`: of its payload, in bytes."""
        self._jobs[job.id] = job
        if not job.over:
            self._sizes[job.id] = size

    def refusal(self, size: int) -> str:
        """Return why a job of `size` bytes is refused, "" if it is not."""
        if len(self._sizes) >= MOST_WAITING or sum(self._sizes.values()) + size > MOST_BYTES:
            return f"{len(self._sizes)} jobs are waiting already; `mempalace-broker status` shows why"
        return ""

    def twin(self, job: Job) -> Job | None:
        """Return an unfinished job with the same key, or None."""
        alike = (one for one in self._jobs.values() if job.dedupe_key and one.dedupe_key == job.dedupe_key)
        return next((one for one in alike if not one.over), None)

    def get(self, id_: str) -> Job | None:
        """Return the job with that id, or None."""
        return self._jobs.get(id_)

    def newest(self, count: int) -> list[Job]:
        """Return up to `count` jobs, newest first."""
        return sorted(self._jobs.values(), key=lambda job: job.created, reverse=True)[:count]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        return dict(sorted(Counter(str(job.state) for job in self._jobs.values()).items()))

    def running(self, *, long: bool) -> Job | None:
        """Return the running job, or None: at most one long job and one other run at the same time."""
        jobs = (job for job in self._jobs.values() if is_long(job.kind) is long)
        return next((job for job in jobs if job.state is JobState.RUNNING), None)

    def next(self, now: float, *, long: bool) -> Job | None:
        """Return the job whose turn it is; None while one runs."""
        if self.running(long=long) is not None:
            return None
        ready = [job for job in self._waiting() if is_long(job.kind) is long and job.retry_at <= now]
        return min(ready, key=lambda job: (-job.priority, job.created), default=None)

    def next_at(self, now: float) -> float | None:
        """Return when the next job that was put back is tried again, or None."""
        return min((job.retry_at for job in self._waiting() if job.retry_at > now), default=None)

    def put_back(self, job: Job, now: float) -> None:
        """Put back a job that was not executed; each pause is twice as long as the one before."""
        pause = self._pauses[job.id] = min(2 * self._pauses.get(job.id, FIRST_PAUSE_S / 2), LONGEST_PAUSE_S)
        job.retry_at = now + pause

    def ended(self, wall: float) -> list[Job]:
        """Drop finished jobs that are old or too many; return them. `wall`: seconds since 1970."""
        over = [job for job in self._jobs.values() if job.over]
        for job in over:
            self._sizes.pop(job.id, None)
            self._pauses.pop(job.id, None)
        over.sort(key=lambda job: job.finished or 0.0)
        excess = len(over) - MOST_OVER
        gone = [job for n, job in enumerate(over) if n < excess or wall - (job.finished or 0.0) > KEEP_S]
        for job in gone:
            del self._jobs[job.id]
        return gone

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state is JobState.QUEUED]
