"""A queue that takes flows in turn, and each flow's calls in order: a flow is one client's, see Session."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .call import CallState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .call import Call


class FairQueue:
    """Queued calls; withdrawn ones stay in place and are skipped when their turn comes. `live`: how many are not."""

    def __init__(self) -> None:
        self._urgent: deque[Call] = deque()
        self._by_flow: dict[int, deque[Call]] = {}
        self._turn: deque[int] = deque()
        self.live = 0

    def push(self, call: Call) -> None:
        """Add behind the calls of the same flow."""
        line = self._by_flow.get(call.flow)
        if line is None:
            line = self._by_flow[call.flow] = deque()
            self._turn.append(call.flow)
        line.append(call)
        self.live += 1

    def push_front(self, calls: Iterable[Call]) -> None:
        """Put calls before all others, in the order of their turns: calls that an engine left must not be overtaken."""
        batch = list(calls)
        self._urgent = deque(sorted((*self._urgent, *batch), key=lambda call: call.turn))
        self.live += len(batch)

    def pop(self) -> Call | None:
        """The next call, or None."""
        while self._urgent:
            call = self._urgent.popleft()
            if call.state == CallState.QUEUED:
                self.live -= 1
                return call
        while self._turn:
            flow = self._turn.popleft()
            line = self._by_flow[flow]
            while line and line[0].state != CallState.QUEUED:
                line.popleft()
            if not line:
                del self._by_flow[flow]
                continue
            call = line.popleft()
            if line:
                self._turn.append(flow)
            else:
                del self._by_flow[flow]
            self.live -= 1
            return call
        return None

    def first(self, skips: Callable[[Call], bool]) -> Call | None:
        """The call that `pop` would give if there were no connections whose next call `skips` accepts."""
        for call in self._urgent:
            if call.state == CallState.QUEUED:
                return None if skips(call) else call
        for flow in self._turn:
            passed: set[int] = set()
            for call in self._by_flow[flow]:
                if call.state == CallState.QUEUED and call.conn not in passed:
                    if not skips(call):
                        return call
                    passed.add(call.conn)
        return None

    def take(self, call: Call) -> None:
        """Take out the call that `first` gave."""
        self.live -= 1
        if call in self._urgent:
            self._urgent.remove(call)
            return
        line = self._by_flow[call.flow]
        line.remove(call)
        self._turn.remove(call.flow)
        if line:
            self._turn.append(call.flow)
        else:
            del self._by_flow[call.flow]

    def withdraw(self, call: Call) -> None:
        """Take a queued call out; the caller has checked that it is in this queue."""
        call.state = CallState.OVER
        self.live -= 1

    def upcoming(self, count: int) -> list[Call]:
        """The calls that `pop` would give next, at most one a flow and `count` in all."""
        out = [call for call in self._urgent if call.state == CallState.QUEUED][:count]
        for flow in self._turn:
            if len(out) >= count:
                break
            line = self._by_flow[flow]
            while line and line[0].state != CallState.QUEUED:  # withdrawn
                line.popleft()
            if line:
                out.append(line[0])
        return out

    def __iter__(self) -> Iterator[Call]:
        """All queued calls, in no particular order across flows."""
        for line in (self._urgent, *self._by_flow.values()):
            yield from (call for call in line if call.state == CallState.QUEUED)
