"""When the broker leaves by itself, and how long calls may go on once it does."""

from __future__ import annotations

from mempalace_broker.broker.machine.lifecycle import BrokerState, Lifecycle


def test_it_leaves_after_resting_long_enough() -> None:
    life = Lifecycle(idle_s=60.0, drain_s=5.0, now=100.0)
    assert life.idle
    assert life.next_deadline() == 160.0
    assert life.idle_too_long(159.9) == ""
    assert life.idle_too_long(160.0) == "idle for 60 s"


def test_work_stops_the_idle_timer_and_rest_starts_it_anew() -> None:
    life = Lifecycle(idle_s=60.0, drain_s=5.0, now=100.0)
    life.work()
    assert (life.idle, life.next_deadline(), life.idle_too_long(1000.0)) == (False, None, "")
    life.rest(1000.0)
    assert life.idle
    assert life.next_deadline() == 1060.0


def test_idle_0_means_never() -> None:
    life = Lifecycle(idle_s=0.0, drain_s=5.0, now=0.0)
    assert (life.next_deadline(), life.idle_too_long(1e9)) == (None, "")


def test_running_calls_have_the_drain_time() -> None:
    life = Lifecycle(idle_s=60.0, drain_s=5.0, now=100.0)
    assert not life.drained_too_long(1e9), "nobody told it to leave"
    life.drain(200.0, "told to")
    assert (life.state, life.reason) == (BrokerState.DRAINING, "told to")
    assert "told to" in life.leaving_text
    assert life.next_deadline() == 205.0
    assert not life.drained_too_long(204.9)
    assert life.drained_too_long(205.0)
    assert life.idle_too_long(1e9) == "", "it leaves for one reason only"
    life.state = BrokerState.OVER
    assert not life.drained_too_long(1e9)
    assert life.next_deadline() is None


def test_it_stays_for_clients_that_come_back_without_notice_and_rests_meanwhile() -> None:
    life = Lifecycle(idle_s=60.0, drain_s=5.0, now=100.0)
    life.wanted(1000.0)
    assert life.next_deadline() == 160.0
    assert not life.engine_idle(159.0)
    assert not life.idle_too_long(160.0)
    assert life.engine_idle(160.0)
    assert not life.engine_idle(161.0), "once"
    assert life.next_deadline() == 1000.0
    life.work()
    assert life.next_deadline() is None
    life.rest(900.0)
    assert life.next_deadline() == 960.0
    assert not life.idle_too_long(960.0)
    life.rest(990.0)
    assert life.next_deadline() == 1050.0
    assert life.idle_too_long(1050.0)
