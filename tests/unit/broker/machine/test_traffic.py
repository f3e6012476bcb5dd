"""What calls took: counted in buckets, by lane, by tool and by time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mempalace_broker.broker.machine.call import Call, call_of, rule_of
from mempalace_broker.broker.machine.traffic import BOUNDS_S, OTHER_TOOL, SLOTS, Histogram, Traffic, percentile
from mempalace_broker.protocol import jsonrpc as rpc
from tests.unit.broker.machine.dialogue import SEARCH, WAIT, call

START = 1000.0


def arrived(now: float, tool: str = SEARCH, waited: float = 0.0) -> Call:
    message = rpc.parse(rpc.to_bytes(call(1, tool)))
    made = call_of(message, b"", rule_of(tool, None), n=1, conn=1, flow=1, key="", run_s=60.0, now=now)
    made.started = now + waited
    return made


def taken(traffic: Traffic, now: float, since: float = START) -> dict[str, Any]:
    return traffic.as_json(now, since)


def test_a_call_counts_in_its_lane_and_for_its_tool() -> None:
    traffic = Traffic()
    traffic.answered(arrived(START, waited=0.004), START + 0.012, error=False)
    traffic.answered(arrived(START), START + 0.012, error=True)
    traffic.failed(arrived(START, "invented"), START + 1.0)
    found = taken(traffic, START + 2.0)
    palace = found["lanes"]["palace"]
    assert palace["took"]["counts"][BOUNDS_S.index(0.015)] == 2
    assert palace["took"]["sum_s"] == pytest.approx(0.024)
    assert palace["waited"]["counts"][BOUNDS_S.index(0.005)] == 1
    assert sum(found["lanes"]["free"]["took"]["counts"]) == 0
    assert found["tools"] == {SEARCH: {"calls": 2, "errors": 1}, OTHER_TOOL: {"calls": 1, "errors": 1}}
    assert (found["calls"][-1], found["errors"][-1]) == (3, 2)
    assert 0.01 < found["p95_s"][-1] <= 0.015
    assert found["windows"]["1m"]["p99_s"] == found["windows"]["15m"]["p99_s"] == pytest.approx(0.01495)
    assert len(found["calls"]) == SLOTS


def test_rates_cover_what_there_was_of_the_last_minutes() -> None:
    traffic = Traffic()
    for second in range(120):
        traffic.answered(arrived(START + second), START + second, error=second < 60)
    windows = taken(traffic, START + 120.0)["windows"]
    assert windows["1m"]["calls_per_s"] == pytest.approx(1.0, abs=0.05)
    assert windows["1m"]["errors_per_s"] == 0.0
    assert windows["15m"]["calls_per_s"] == pytest.approx(1.0, abs=0.05), "the broker has run for two minutes"
    assert windows["15m"]["errors_per_s"] == pytest.approx(0.5, abs=0.05)
    later = taken(traffic, START + 10_000.0)
    assert later["windows"]["15m"] == {
        "calls_per_s": 0.0,
        "errors_per_s": 0.0,
        "p50_s": None,
        "p95_s": None,
        "p99_s": None,
    }
    assert sum(later["calls"]) == 0
    assert sum(later["lanes"]["palace"]["took"]["counts"]) == 120, "the histograms cover its whole life"


def test_calls_that_block_by_design_say_nothing_of_the_latency() -> None:
    traffic = Traffic()
    traffic.answered(arrived(START, WAIT), START + 50.0, error=False)
    found = taken(traffic, START + 51.0)
    assert found["windows"]["1m"]["p99_s"] is None
    assert sum(found["lanes"]["wait"]["took"]["counts"]) == 1


@given(st.lists(st.floats(0.0, 400.0), min_size=1, max_size=50), st.sampled_from([50, 95, 99]))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(durations: list[float], percent: int) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    assert sum(histogram.counts) == len(durations)
    found = percentile(histogram.counts, percent)
    true = sorted(durations)[max(0, -(-len(durations) * percent // 100) - 1)]
    low = max((bound for bound in BOUNDS_S if bound < true), default=0.0)
    high = next((bound for bound in BOUNDS_S if bound >= true), BOUNDS_S[-1])
    assert found is not None
    assert low <= found + 1e-5
    assert found <= high + 1e-5


def test_no_calls_have_no_percentile() -> None:
    assert percentile([], 50) is None
    assert percentile(Histogram().counts, 99) is None
