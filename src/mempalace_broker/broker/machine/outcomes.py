"""The outcomes of writes whose client lost its connection: proved, or unknown, never guessed.

They are known from the journal (earlier engines and brokers) and from the answers of the present engine. Both are
bounded, so absence proves "not started" only as far back as they reach: `covered_from` says since when.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from ...protocol.hello import WriteOutcome
from .replay import refused_as_stale

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .call import Call

ENTRIES = 50_000
RESPONSE_BYTES = 64 << 20  # kept of all responses; of older writes only that they ran is known
_MARGIN_S = 1.0


class Outcomes:
    """Outcomes of writes by journal key.

    Attributes:
        covered_from: monotonic seconds; what is older and absent is unknown.
        since: the first epoch (lease/machine/lease.py) whose writes are all in the journal; a write given to an
            earlier broker is unknown where it is absent. No clock could tell: a paused machine's stands still.
    """

    def __init__(self, since: int = 0, entries: int = ENTRIES, response_bytes: int = RESPONSE_BYTES) -> None:
        self._ended: OrderedDict[str, float] = OrderedDict()  # when
        self._responses: OrderedDict[str, bytes] = OrderedDict()
        self._open: set[str] = set()
        self._entries = entries
        self._response_bytes = response_bytes
        self._size = 0
        self.covered_from = float("-inf")
        self.since = since

    def load(self, ended: Mapping[str, bytes | None], begun: Collection[str], now: float, covered_from: float) -> None:
        """Load a journal; no engine works on its open entries any more."""
        self.covered_from = max(self.covered_from, covered_from)
        for key, response in ended.items():
            self.ended(key, response, now)
        self._open |= set(begun)

    def ended(self, key: str, response: bytes | None, now: float) -> None:
        """The write `key` ran; `response` is None where it was not kept."""
        self._open.discard(key)
        self._ended[key] = now
        self._size -= len(self._responses.pop(key, b""))
        if response is not None:
            self._responses[key] = response
            self._size += len(response)
        while self._size > self._response_bytes:
            self._size -= len(self._responses.popitem(last=False)[1])
        while len(self._ended) > self._entries:
            oldest, when = self._ended.popitem(last=False)
            self._size -= len(self._responses.pop(oldest, b""))
            self.covered_from = max(self.covered_from, when)

    def unknown(self, key: str) -> None:
        """The write `key` had begun when its engine died."""
        self._open.add(key)

    def after_death(self, call: Call, ended: Mapping[str, bytes | None], begun: Collection[str], now: float) -> None:
        """Note what the journal says of a call whose engine died."""
        if not call.writes:
            return
        refused = refused_as_stale(ended.get(call.key))
        if call.key in ended and not refused:
            self.ended(call.key, ended[call.key], now)
        elif refused or call.key in begun or call.answered:
            self.unknown(call.key)

    def outcome(self, key: str, sent_at: float | None) -> tuple[str, bytes | None]:
        """(state, response) of a write that was sent at `sent_at`.

        Args:
            sent_at: monotonic seconds, the latest it can have been; None: to a broker that kept another journal.
        """
        if key in self._ended:
            return WriteOutcome.DONE, self._responses.get(key)
        if key in self._open or sent_at is None or sent_at - _MARGIN_S < self.covered_from:
            return WriteOutcome.UNKNOWN, None
        return WriteOutcome.NOT_STARTED, None
