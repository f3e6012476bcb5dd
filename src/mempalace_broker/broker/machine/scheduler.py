"""Which call runs next: three lanes, fair across sessions, with two limits per call. Pure: the clock is handed in.

    palace   everything that touches the vector store; one call at a time. In one process a Chroma write that overlaps
             a Chroma read loses the index on mempalace 3.4.0 and throws on 3.11, so there is no second slot here.
    free     knowledge graph, log stream, constants: own SQLite, own locks; a few calls in the engine at once
    wait     calls that block by design (event_wait); they hold no slot of the others

A lane takes clients in turn, each client's calls in order: ten thousand queued calls of one client delay another's
single call by one call. An `exclusive` call (a tool that is not in the table, `reconnect`) runs while nothing else
does. A `mine` may take hours; where the engine can let others in between two files (`mine_yields`), one more palace
call is in the engine beside it, and begins when the engine says so.

The waiting limit holds until a call has begun, the running limit from then on. A mine that waits for another mine has
no waiting limit, and keeps no other session waiting meanwhile.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...protocol.tools import Lane
from .call import CallState
from .fair_queue import FairQueue

if TYPE_CHECKING:
    from .call import Call

LANES = (Lane.PALACE, Lane.FREE, Lane.WAIT)
MINE = "mempalace_mine"
_PROGRESS_CHARS = 20
_PATIENT = frozenset({MINE, "mempalace_sync"})  # behind one another they wait for as long as that takes
NOT_BESIDE_MINE = frozenset({MINE, "mempalace_sync", "mempalace_reconnect"})  # they work on the files a mine works on


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts; a limit of 0 seconds means none."""

    wait_s: float = 60.0
    run_s: float = 60.0
    init_s: float = 120.0
    park_s: float = 0.0
    free_width: int = 4
    wait_width: int = 64
    session_calls: int = 20_000
    session_bytes: int = 64 << 20  # of calls that one session may have open; one call may always have more
    all_bytes: int = 192 << 20  # of all open calls; beyond it, a session may have `spare_bytes`
    spare_bytes: int = 1 << 20
    prefetches: int = 2


@dataclass(slots=True)
class Expired:
    """Calls that are past a limit, as `expire` found them.

    Attributes:
        waited: waited too long; withdrawn.
        behind: waited too long inside the engine behind a mine; nobody knows when they will run.
        ran: run too long; their engine has to go.
    """

    waited: list[Call] = field(default_factory=list)
    behind: list[Call] = field(default_factory=list)
    ran: list[Call] = field(default_factory=list)


class Scheduler:
    """Decides and never acts: its caller sends what `dispatch` returns, and reports what came back.

    Attributes:
        held: bytes of all calls that wait or run.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.mine_yields = False
        self.held = 0
        self.queues = {lane: FairQueue() for lane in LANES}
        self.running: dict[int, Call] = {}
        self._width = {Lane.PALACE: 1, Lane.FREE: limits.free_width, Lane.WAIT: limits.wait_width}
        self._in_lane = dict.fromkeys(LANES, 0)
        self._turns = 0
        self._waiting_since: deque[tuple[float, Call]] = deque()
        self._run_heap: list[tuple[float, int]] = []

    def submit(self, call: Call) -> None:
        """Queue a call."""
        call.since = call.arrived
        self.held += call.size
        self.queues[call.rule.lane].push(call)
        if self.limits.wait_s:
            self._waiting_since.append((call.since, call))

    def dispatch(self, now: float) -> list[Call]:
        """The calls that go to the engine now, in this order; they count as running from here on."""
        out: list[Call] = []
        for lane, queue in self.queues.items():
            while queue.live and self._may_start(lane) and (call := queue.pop()) is not None:
                self._start(call, now)
                out.append(call)
        if (call := self._beside_mine()) is not None:
            self.queues[Lane.PALACE].take(call)
            self._start(call, now, behind_mine=True)
            out.append(call)
        return out

    @property
    def has_startable(self) -> bool:
        """Whether `dispatch` would return a call."""
        for lane, queue in self.queues.items():
            if queue.live and self._may_start(lane):
                return True
        return self._beside_mine() is not None

    def _beside_mine(self) -> Call | None:
        """The palace call that may be sent while a mine runs; sessions that want to mine themselves are passed over."""
        if not self.mine_yields or self._in_lane[Lane.PALACE] != 1:
            return None
        mine = next(call for call in self.running.values() if call.rule.lane == Lane.PALACE)
        if mine.tool != MINE:
            return None
        call = self.queues[Lane.PALACE].first(lambda call: call.tool in _PATIENT)
        return None if call is None or call.exclusive or call.tool in NOT_BESIDE_MINE else call

    def _may_start(self, lane: Lane) -> bool:
        """Whether the next call of a lane, which has one, may go to the engine."""
        if self._in_lane[lane] >= self._width[lane]:
            return False
        if any(call.exclusive for call in self.running.values()):
            return False
        head = self.queues[Lane.PALACE].upcoming(1)
        if lane != Lane.PALACE:
            return not (head and head[0].exclusive and not self._in_lane[Lane.PALACE])
        return not (head and head[0].exclusive and (self._in_lane[Lane.FREE] or self._in_lane[Lane.PALACE]))

    def _start(self, call: Call, now: float, *, behind_mine: bool = False) -> None:
        call.state = CallState.SENT
        call.started = now
        call.attempts += 1
        if not call.turn:
            self._turns += 1
            call.turn = self._turns
        call.begun = not behind_mine
        call.file = call.files = 0
        self.running[call.n] = call
        self._in_lane[call.rule.lane] += 1
        if behind_mine and self.limits.wait_s:
            heapq.heappush(self._run_heap, (max(now, call.since + self.limits.wait_s), call.n))
        elif call.run_limit:
            heapq.heappush(self._run_heap, (now + call.run_limit, call.n))

    def begun(self, n: int, now: float) -> None:
        """The engine has begun call `n`, which waited inside it behind a mine."""
        call = self.running.get(n)
        if call is None or call.begun:
            return
        call.begun = True
        call.started = now
        if call.run_limit:
            heapq.heappush(self._run_heap, (now + call.run_limit, n))

    def progressed(self, n: int, progress: str) -> None:
        """Note how far call `n` is. `progress`: "12/60" for the 12th of 60 files."""
        call = self.running.get(n)
        file, _, files = progress.partition("/")
        if call is not None and len(progress) <= _PROGRESS_CHARS and file.isdecimal() and files.isdecimal():
            call.file, call.files = int(file), int(files)

    def prefetches(self) -> list[Call]:
        """Queued palace calls whose text may be embedded ahead of their turn; each is returned once."""
        if not self._in_lane[Lane.PALACE]:
            return []
        out = []
        for call in self.queues[Lane.PALACE].upcoming(self.limits.prefetches):
            if call.rule.embed and not call.prefetched:
                call.prefetched = True
                out.append(call)
        return out

    def finish(self, n: int) -> Call | None:
        """The engine is done with call `n`: the call, or None if it isn't running any more."""
        call = self.running.pop(n, None)
        if call is not None:
            call.state = CallState.OVER
            self.held -= call.size
            self._in_lane[call.rule.lane] -= 1
        return call

    def withdraw(self, call: Call) -> bool:
        """Withdraw a call that has not been sent; False if it has."""
        if call.state != CallState.QUEUED:
            return False
        self.queues[call.rule.lane].withdraw(call)
        self.held -= call.size
        call.raw = b""  # the queue may keep the call itself until its turn comes
        return True

    def lost(self) -> list[Call]:
        """The engine died: return the calls that were in it, oldest first; none of them counts as running now."""
        calls = sorted(self.running.values(), key=lambda call: call.turn)
        for call in calls:
            self.finish(call.n)
        return calls

    def requeue(self, calls: list[Call], now: float) -> None:
        """Run these again before anything else, in their order. Their waiting limit starts anew, as a mine may have run
        for hours.
        """
        for call in calls:
            call.state = CallState.QUEUED
            call.since = now
            self.held += call.size
            if self.limits.wait_s:
                self._waiting_since.append((call.since, call))
        for lane in LANES:
            self.queues[lane].push_front(call for call in calls if call.rule.lane == lane)

    def waiting(self) -> list[Call]:
        """All queued calls, in no particular order."""
        return [call for lane in LANES for call in self.queues[lane]]

    def expire(self, now: float) -> Expired:
        """Withdraw the calls that waited too long, and return those that run too long, each at most once."""
        out = Expired()
        while (head := self._longest_waiting()) is not None and now >= head.since + self.limits.wait_s:
            if head.tool in _PATIENT and self._mining:
                head.since = now
                self._waiting_since.append((now, head))
                continue
            self.withdraw(head)
            out.waited.append(head)
        while self._run_heap and self._run_heap[0][0] <= now:
            _, n = heapq.heappop(self._run_heap)
            late = self.running.get(n)
            if late is None:
                continue
            if not late.begun:
                if now >= late.since + self.limits.wait_s:  # else the entry belongs to its run in a dead engine
                    out.behind.append(late)
            elif late.run_limit and now >= late.started + late.run_limit:
                out.ran.append(late)
        return out

    @property
    def _mining(self) -> bool:
        return any(call.tool in _PATIENT for call in self.running.values())

    def _longest_waiting(self) -> Call | None:
        entries = self._waiting_since
        while entries:
            since, call = entries[0]
            if call.state == CallState.QUEUED and call.since == since:  # else it ran meanwhile; a later entry counts
                return call
            entries.popleft()
        return None

    def next_deadline(self) -> float | None:
        """When to call `expire` next, or None."""
        while self._run_heap and self._run_heap[0][1] not in self.running:
            heapq.heappop(self._run_heap)
        times = []
        head = self._longest_waiting()
        if head is not None:
            times.append(head.since + self.limits.wait_s)
        if self._run_heap:
            times.append(self._run_heap[0][0])
        return min(times, default=None)

    @property
    def running_keys(self) -> set[str]:
        """Journal keys of the calls that are in the engine: the outcomes of these writes are still to come."""
        return {call.key for call in self.running.values()}

    @property
    def idle(self) -> bool:
        """Whether no call is queued or running."""
        return not (self.running or any(queue.live for queue in self.queues.values()))
