"""Counts refused TCP clients by address and reason, and says how long to delay the answer. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ADDRESSES = 256
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 3.0
FORGIVEN_S = 60.0  # after the last one an address starts anew
LOG_EVERY_S = 30.0
_MOST_NAMED = 8
OTHERS = "others"


class Refusals:
    """The refusals of one listener.

    Args:
        now: the monotonic clock. log: takes a line for the log.

    Attributes:
        totals: refusals by reason since the start.
    """

    def __init__(self, now: Callable[[], float], log: Callable[[str], None]) -> None:
        self._now = now
        self._log = log
        self._recent: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address: failures in a row, the last
        self._unlogged: dict[str, dict[str, int]] = {}
        self._logged_at = float("-inf")
        self.totals: dict[str, int] = {}

    def note(self, address: str, kind: str) -> float:
        """Count one more; return how many seconds to delay its answer."""
        now = self._now()
        count, last = self._recent.pop(address, (0, now))
        count = 1 if now - last > FORGIVEN_S else count + 1
        self._recent[address] = (count, now)
        if len(self._recent) > MOST_ADDRESSES:
            self._recent.popitem(last=False)
        self.totals[kind] = self.totals.get(kind, 0) + 1
        who = address if address in self._unlogged or len(self._unlogged) < MOST_ADDRESSES else OTHERS
        kinds = self._unlogged.setdefault(who, {})
        kinds[kind] = kinds.get(kind, 0) + 1
        self.flush(now)
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(count - 1, 20))

    def flush(self, now: float) -> None:
        """Log what was not logged yet, rate-limited."""
        if not self._unlogged or now - self._logged_at < LOG_EVERY_S:
            return
        self._logged_at = now
        ranked = sorted(self._unlogged.items(), key=lambda item: -sum(item[1].values()))
        words = [f"{address} ({_kinds(kinds)})" for address, kinds in ranked[:_MOST_NAMED]]
        if len(ranked) > _MOST_NAMED:
            words.append(f"{len(ranked) - _MOST_NAMED} more addresses")
        self._log("refused over TCP: " + ", ".join(words))
        self._unlogged.clear()


def _kinds(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
