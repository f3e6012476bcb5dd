"""Lanes: first in first out, one at a time; a mine lets waiting calls in; closing begins nothing more."""

from __future__ import annotations

import threading

from mempalace_broker.engine.lanes import Lane, WaitingPlace

PATIENCE_S = 10


def test_first_in_first_out_and_only_those_that_waited_say_so() -> None:
    lane, seen = Lane(), []
    for n in range(3):
        lane.put(lambda waited, n=n: seen.append((n, waited)))  # type: ignore[misc]
    lane.put(lambda _: lane.close())
    lane.run()
    assert seen == [(0, False), (1, True), (2, True)]


def test_a_call_that_comes_during_another_waits() -> None:
    lane, seen = Lane(), list[bool]()

    def first(_: bool) -> None:
        lane.put(seen.append)
        lane.put(lambda _: lane.close())

    lane.put(first)
    lane.run()
    assert seen == [True]


def test_between_two_files_waiting_calls_run_except_those_that_may_not() -> None:
    lane, seen = Lane(), []

    def mine(_: bool) -> None:
        assert not lane.run_waiting()
        lane.put(lambda _: seen.append("reconnect"), between=False)
        lane.put(lambda _: seen.append("search"))
        assert lane.run_waiting()
        assert not lane.run_waiting()
        seen.append("mined")

    lane.put(mine)
    thread = threading.Thread(target=lane.run)
    thread.start()
    done = threading.Event()
    lane.put(lambda _: done.set(), between=False)
    assert done.wait(PATIENCE_S)
    lane.close()
    thread.join(PATIENCE_S)
    assert seen == ["search", "mined", "reconnect"]


def test_close_finishes_what_runs_and_begins_nothing_more() -> None:
    lane, seen = Lane(), []

    def job(_: bool) -> None:
        lane.close()
        seen.append("finished")

    lane.put(job)
    lane.put(lambda _: seen.append("never"))
    lane.run()
    lane.put(lambda _: seen.append("never"))
    assert seen == ["finished"]
    assert lane.closed


def test_a_job_that_raises_does_not_block_the_lane_for_ever() -> None:
    lane, seen = Lane(), []

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


def test_the_waiting_place_is_bounded_and_runs_all() -> None:
    place, gate, all_in = WaitingPlace(limit=2), threading.Event(), threading.Semaphore(0)
    lock, running, most, waited_flags = threading.Lock(), [0], [0], []

    def job(waited: bool) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert gate.wait(PATIENCE_S)
        with lock:
            running[0] -= 1
            waited_flags.append(waited)
        all_in.release()

    for _ in range(5):
        place.put(job)
    gate.set()
    for _ in range(5):
        assert all_in.acquire(timeout=PATIENCE_S)
    assert most[0] <= 2
    assert sorted(waited_flags) == [False, False, True, True, True]
