"""Counts calls and their durations, in fixed buckets: a call costs three binary searches among 31 bounds.

    answered / failed      counts a call
    as_json                everything, for `status`; the views compute only rates from it

Rates and percentiles cover the last minutes and are kept in slots of ten seconds. The histograms of a lane cover the
broker's whole life, as Prometheus needs them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...protocol.tools import Lane
from .scheduler import LANES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .call import Call

BOUNDS_S = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0),
)
SLOT_S = 10
SLOTS = 90
WINDOWS_S = {"1m": 60, "15m": 900}
OTHER_TOOL = "other"
_PERCENTILES = (50, 95, 99)


class Histogram:
    """The number of durations in each bucket of BOUNDS_S; the last count is of those above all bounds."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def as_json(self) -> dict[str, Any]:
        """Return the histogram for `status`."""
        return {"counts": self.counts, "sum_s": round(self.sum_s, 4)}


class _Slot:
    """Ten seconds. `took` leaves out calls that block by design."""

    __slots__ = ("calls", "errors", "number", "took")

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = self.errors = 0
        self.took = Histogram()


class Traffic:
    """The calls of one broker since its start. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._took = {lane: Histogram() for lane in LANES}
        self._waited = {lane: Histogram() for lane in LANES}
        self._tools: dict[str, list[int]] = {}  # calls and errors
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)

    def answered(self, call: Call, now: float, *, error: bool) -> None:
        """Count a call that the engine has answered, perhaps with an error."""
        lane, took = call.rule.lane, now - call.arrived
        self._took[lane].add(took)
        self._waited[lane].add(call.started - call.arrived)
        slot = self._count(call, now, error=error)
        if lane is not Lane.WAIT:
            slot.took.add(took)

    def failed(self, call: Call, now: float) -> None:
        """Count a call that the broker has answered with an error."""
        self._count(call, now, error=True)

    def _count(self, call: Call, now: float, *, error: bool) -> _Slot:
        number = int(now) // SLOT_S
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        slot = self._slots[-1]
        slot.calls += 1
        slot.errors += error
        name = call.rule.name or OTHER_TOOL  # not as the client named it: it may invent names
        counts = self._tools.setdefault(name, [0, 0])
        counts[0] += 1
        counts[1] += error
        return slot

    # -- for status

    def as_json(self, now: float, since: float) -> dict[str, Any]:
        """Return everything for `status`, see docs/status.md. `since`: when the broker started."""
        current = int(now) // SLOT_S
        by_number = {slot.number: slot for slot in self._slots}
        last = [by_number.get(number) for number in range(current - SLOTS + 1, current + 1)]
        return {
            "bounds_s": BOUNDS_S,
            "lanes": {
                lane: {"took": self._took[lane].as_json(), "waited": self._waited[lane].as_json()} for lane in LANES
            },
            "tools": {name: {"calls": calls, "errors": errors} for name, (calls, errors) in self._tools.items()},
            "windows": {name: self._window(now, since, seconds) for name, seconds in WINDOWS_S.items()},
            "slot_s": SLOT_S,
            "calls": [slot.calls if slot else 0 for slot in last],
            "errors": [slot.errors if slot else 0 for slot in last],
            "p95_s": [percentile(slot.took.counts, 95) if slot else None for slot in last],
        }

    def _window(self, now: float, since: float, seconds: int) -> dict[str, Any]:
        first = int(now - seconds) // SLOT_S + 1
        slots = [slot for slot in islice(reversed(self._slots), seconds // SLOT_S) if slot.number >= first]
        covered = max(1.0, now - max(since, first * SLOT_S))
        counts = summed(slot.took.counts for slot in slots)
        return {
            "calls_per_s": round(sum(slot.calls for slot in slots) / covered, 3),
            "errors_per_s": round(sum(slot.errors for slot in slots) / covered, 3),
            **{f"p{percent}_s": percentile(counts, percent) for percent in _PERCENTILES},
        }


def summed(all_counts: Iterable[list[int]]) -> list[int]:
    """Return the sum of several histograms' counts."""
    return [sum(column) for column in zip(*all_counts, strict=True)]


def percentile(counts: list[int], percent: int) -> float | None:
    """Return a percentile of the durations, to within a bucket; None if there are none."""
    total = sum(counts)
    if not total:
        return None
    left = total * percent / 100
    for number, count in enumerate(counts):
        if count and left <= count:
            low = BOUNDS_S[number - 1] if number else 0.0
            high = BOUNDS_S[min(number, len(BOUNDS_S) - 1)]
            return round(low + (high - low) * left / count, 5)
        left -= count
    return BOUNDS_S[-1]
