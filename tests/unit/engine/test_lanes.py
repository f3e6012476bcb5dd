"""Lanes: first in first out, one at a time; a mine lets waiting calls in; closing begins nothing more."""

from __future__ import annotations

import threading

import pytest

from mempalace_broker.engine import lanes
from mempalace_broker.engine.lanes import SHORT_S, InlineReads, JobQueue

PATIENCE_S = 10


def test_first_in_first_out_and_only_those_that_waited_say_so() -> None:
    lane, seen = JobQueue(), []
    for n in range(3):
        lane.put(lambda waited, n=n: seen.append((n, waited)))  # type: ignore[misc]
    lane.put(lambda _: lane.close())
    lane.run()
    assert seen == [(0, False), (1, True), (2, True)]


def test_a_call_that_comes_during_another_waits() -> None:
    lane, seen = JobQueue(), list[bool]()

    def first(_: bool) -> None:
        lane.put(seen.append)
        lane.put(lambda _: lane.close())

    lane.put(first)
    lane.run()
    assert seen == [True]


def test_between_two_files_waiting_calls_run_except_those_that_may_not() -> None:
    lane, seen = JobQueue(), []

    def mine(_: bool) -> None:
        assert not lane.run_between_files(8)
        lane.put(lambda _: seen.append("reconnect"), between_files=False)
        lane.put(lambda _: seen.append("search"))
        assert lane.run_between_files(8)
        assert not lane.run_between_files(8)
        seen.append("mined")

    lane.put(mine)
    thread = threading.Thread(target=lane.run)
    thread.start()
    done = threading.Event()
    lane.put(lambda _: done.set(), between_files=False)
    assert done.wait(PATIENCE_S)
    lane.close()
    thread.join(PATIENCE_S)
    assert seen == ["search", "mined", "reconnect"]


def test_between_two_files_those_that_come_after_an_answer_run_as_well_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes, "_NEXT_S", PATIENCE_S)
    lane, seen = JobQueue(), list[int]()

    def search(number: int) -> None:
        """As a session that sends its next search when it has an answer."""
        seen.append(number)
        threading.Thread(target=lambda: lane.put(lambda _: search(number + 1))).start()

    def mine(_: bool) -> None:
        lane.put(lambda _: search(0))
        assert lane.run_between_files(8)
        seen.append(-1)
        lane.close()

    lane.put(mine)
    lane.run()
    assert seen == [*range(8), -1]


def test_close_finishes_what_runs_and_begins_nothing_more() -> None:
    lane, seen = JobQueue(), []

    def job(_: bool) -> None:
        lane.close()
        seen.append("finished")

    lane.put(job)
    lane.put(lambda _: seen.append("never"))
    lane.run()
    lane.put(lambda _: seen.append("never"))
    assert seen == ["finished"]


def test_a_job_that_raises_does_not_block_the_lane_for_ever() -> None:
    lane, seen = JobQueue(), []

    def boom(_: bool) -> None:
        raise KeyError

    lane.put(boom)
    try:
        lane.run()
    except KeyError:
        seen.append("raised")
    lane.put(seen.append)  # type: ignore[arg-type]
    lane.put(lambda _: lane.close())
    lane.run()
    assert seen == ["raised", False]


def test_a_read_that_took_long_keeps_the_next_ones_off_the_reader_thread_for_a_while() -> None:
    reads = InlineReads()
    assert reads.allowed(0.0)
    reads.took(0.0, SHORT_S - 0.001)
    assert reads.allowed(SHORT_S)
    reads.took(1.0, 2.0)
    assert not reads.allowed(2.0)
    assert not reads.allowed(101.9)
    assert reads.allowed(102.0)
