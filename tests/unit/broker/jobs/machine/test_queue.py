"""Which job is next, and which is forgotten."""

from __future__ import annotations

import itertools
from typing import Any

from mempalace_broker.broker.jobs.machine import queue as mod
from mempalace_broker.broker.jobs.machine.job import Job, JobState
from mempalace_broker.broker.jobs.machine.queue import JobQueue

_NUMBERS = itertools.count()


def job(queue: JobQueue, kind: str = "mine", size: int = 10, **more: Any) -> Job:
    n = next(_NUMBERS)
    made = Job(f"{n:08x}", kind, {}, "5" * 32, float(n), 1, **more)
    queue.add(made, size)
    return made


def test_one_that_may_take_hours_and_one_other_run_at_a_time() -> None:
    queue = JobQueue()
    mine, sweep = job(queue), job(queue, "sweep")
    diary, urgent = job(queue, "diary_write"), job(queue, "diary_write", priority=10)
    assert queue.next(0.0, long=True) is mine
    assert queue.next(0.0, long=False) is urgent
    mine.begins(1.0)
    urgent.begins(1.0)
    assert queue.next(0.0, long=True) is queue.next(0.0, long=False) is None
    assert (queue.running(long=True), queue.running(long=False)) == (mine, urgent)
    mine.state = urgent.state = JobState.SUCCEEDED
    assert (queue.next(0.0, long=True), queue.next(0.0, long=False)) == (sweep, diary)
    assert queue.counts() == {"queued": 2, "succeeded": 2}
    assert queue.newest(1) == [urgent]


def test_pauses_double_up_to_a_minute() -> None:
    queue = JobQueue()
    one = job(queue)
    pauses = []
    for _ in range(9):
        queue.put_back(one, 100.0)
        pauses.append(one.retry_at - 100.0)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert queue.next(159.0, long=True) is None
    assert queue.next_at(159.0) == 160.0
    assert queue.next(160.0, long=True) is one
    assert queue.next_at(160.0) is None


def test_two_for_the_same_are_one_while_it_is_not_over() -> None:
    queue = JobQueue()
    one = job(queue, dedupe_key="k")
    other = Job("ff", "mine", {}, "", 0.0, 1, dedupe_key="k")
    assert queue.twin(other) is one
    other.dedupe_key = None
    assert queue.twin(other) is None
    other.dedupe_key, one.state = "k", JobState.SUCCEEDED
    assert queue.twin(other) is None


def test_bounds_of_what_waits() -> None:
    queue = JobQueue()
    big = job(queue, size=mod.MOST_BYTES)
    assert "1 jobs are waiting already" in queue.refusal(1)
    big.state, big.finished = JobState.SUCCEEDED, 0.0
    assert queue.ended(1.0) == []
    assert queue.refusal(1) == ""
    for _ in range(mod.MOST_WAITING):
        job(queue)
    assert queue.refusal(1)


def test_what_is_over_is_kept_for_a_while() -> None:
    queue = JobQueue()
    over = [job(queue, state=JobState.FAILED, finished=float(n)) for n in range(mod.MOST_OVER + 2)]
    waits = job(queue)
    assert queue.ended(100.0) == over[:2]
    assert queue.ended(mod.KEEP_S + 10.5) == over[2:11]
    assert queue.get(over[0].id) is None
    assert queue.get(waits.id) is waits
