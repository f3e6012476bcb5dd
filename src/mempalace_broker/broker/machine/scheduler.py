"""Who runs next: three lanes, fair across sessions, with two limits per call. Pure: the clock is handed in.

    palace   everything that touches the vector store; one call at a time. In one process a Chroma write that overlaps
             a Chroma read loses the index on mempalace 3.4.0 and throws on 3.11, so there is no second slot here.
    free     knowledge graph, log stream, constants: own SQLite, own locks; a few calls in the engine at once
    wait     calls that block by design (event_wait); they hold no slot of the others

A lane takes sessions in turn, each session's calls in order: ten thousand queued calls of one session delay another's
single call by one call. An `exclusive` call (a tool that is not in the table, `reconnect`) runs while nothing else
does. A `mine` may take hours; where the engine can let others in between two files (`mine_yields`), one more palace
call is in the engine beside it, and begins when the engine says so.

Life of a call:  QUEUED -> SENT -> OVER.  The waiting limit holds until it has begun, the running limit from then on.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...protocol.tools import Lane, Replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...protocol.tools import ToolRule

QUEUED, SENT, OVER = "queued", "sent", "over"
LANES = (Lane.PALACE, Lane.FREE, Lane.WAIT)
MINE = "mempalace_mine"
NOT_BESIDE_MINE = frozenset({MINE, "mempalace_sync", "mempalace_reconnect"})  # they work on the files a mine works on


@dataclass(slots=True, eq=False)
class Call:
    """One tools/call. `conn`: the connection it came by; `key`: its name in the journal; times in monotonic seconds."""

    n: int
    conn: int
    key: str
    id: object
    raw: bytes
    tool: str
    rule: ToolRule
    arrived: float
    run_limit: float | None
    writes: bool
    replay: Replay
    exclusive: bool = False
    state: str = QUEUED
    started: float = 0.0
    attempts: int = 0
    answered: bool = False
    hinted: bool = False
    since: float = 0.0  # when it began to wait, for the last time
    turn: int = 0  # its place in the order in which calls went to an engine for the first time
    was_stale: bool = False  # an engine refused it because mempalace was upgraded underneath
    may_have_run: bool = False  # an engine died in the middle of it: nobody may say that it was not executed
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts; a limit of 0 seconds means none."""

    wait_s: float = 60.0
    run_s: float = 60.0
    init_s: float = 120.0
    free_width: int = 4
    wait_width: int = 64
    session_calls: int = 20_000
    hints: int = 2


class FairQueue:
    """Calls by session, sessions in turn. Withdrawn calls are skipped when their turn comes."""

    def __init__(self) -> None:
        self._urgent: deque[Call] = deque()
        self._by_conn: dict[int, deque[Call]] = {}
        self._turn: deque[int] = deque()
        self._live = 0

    def __len__(self) -> int:
        """Number of calls that still wait."""
        return self._live

    def push(self, call: Call) -> None:
        """Add behind the calls of the same session."""
        line = self._by_conn.get(call.conn)
        if line is None:
            line = self._by_conn[call.conn] = deque()
            self._turn.append(call.conn)
        line.append(call)
        self._live += 1

    def push_front(self, calls: Iterable[Call]) -> None:
        """Put calls before everybody else, in the order of their turns: what an engine left must not be overtaken."""
        batch = list(calls)
        self._urgent = deque(sorted((*self._urgent, *batch), key=lambda call: call.turn))
        self._live += len(batch)

    def pop(self) -> Call | None:
        """The next call, or None."""
        while self._urgent:
            call = self._urgent.popleft()
            if call.state == QUEUED:
                self._live -= 1
                return call
        while self._turn:
            conn = self._turn.popleft()
            line = self._by_conn[conn]
            while line and line[0].state != QUEUED:
                line.popleft()
            if not line:
                del self._by_conn[conn]
                continue
            call = line.popleft()
            if line:
                self._turn.append(conn)
            else:
                del self._by_conn[conn]
            self._live -= 1
            return call
        return None

    def withdraw(self, call: Call) -> None:
        """Take a waiting call out; the caller has checked that it waits here."""
        call.state = OVER
        self._live -= 1

    def upcoming(self, count: int) -> list[Call]:
        """The calls that `pop` would give next, at most one a session and `count` in all."""
        out = [call for call in self._urgent if call.state == QUEUED][:count]
        for conn in self._turn:
            if len(out) >= count:
                break
            line = self._by_conn[conn]
            while line and line[0].state != QUEUED:  # withdrawn
                line.popleft()
            if line:
                out.append(line[0])
        return out

    def __iter__(self) -> Iterator[Call]:
        """All waiting calls, in no particular order across sessions."""
        for line in (self._urgent, *self._by_conn.values()):
            yield from (call for call in line if call.state == QUEUED)


@dataclass(slots=True)
class Expired:
    """What a tick found: calls that waited too long, calls that wait too long inside the engine behind a mine (nobody
    knows when they will run), and calls that run too long (their engine has to go)."""

    waited: list[Call] = field(default_factory=list)
    behind: list[Call] = field(default_factory=list)
    ran: list[Call] = field(default_factory=list)


class Scheduler:
    """Decides, never acts: the hub sends what `dispatch` returns and tells what came back."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.mine_yields = False
        self.queues = {lane: FairQueue() for lane in LANES}
        self.running: dict[int, Call] = {}
        self._in_lane = dict.fromkeys(LANES, 0)
        self._turns = 0
        self._waiting_since: deque[tuple[float, Call]] = deque()
        self._run_heap: list[tuple[float, int]] = []

    def submit(self, call: Call) -> None:
        """Take a call in."""
        call.since = call.arrived
        self.queues[call.rule.lane].push(call)
        if self.limits.wait_s:
            self._waiting_since.append((call.since, call))

    def dispatch(self, now: float) -> list[Call]:
        """The calls that go to the engine now, in this order; they count as running from here on."""
        out: list[Call] = []
        for lane, width in ((Lane.PALACE, 1), (Lane.FREE, self.limits.free_width), (Lane.WAIT, self.limits.wait_width)):
            queue = self.queues[lane]
            while len(queue) and self._in_lane[lane] < width and self._may_start(queue, lane):
                call = queue.pop()
                if call is None:
                    break
                self._start(call, now)
                out.append(call)
        if self._may_slip_in():
            call = self.queues[Lane.PALACE].pop()
            if call is not None:
                self._start(call, now, behind_mine=True)
                out.append(call)
        return out

    def _may_slip_in(self) -> bool:
        """Whether the next palace call may go into the engine beside a mine."""
        if not self.mine_yields or self._in_lane[Lane.PALACE] != 1:
            return False
        head = self.queues[Lane.PALACE].upcoming(1)
        mine = next(call for call in self.running.values() if call.rule.lane == Lane.PALACE)
        return mine.tool == MINE and bool(head) and not head[0].exclusive and head[0].tool not in NOT_BESIDE_MINE

    def _may_start(self, queue: FairQueue, lane: Lane) -> bool:
        if any(call.exclusive for call in self.running.values()):
            return False
        if lane != Lane.PALACE:
            head = self.queues[Lane.PALACE].upcoming(1)
            return not (head and head[0].exclusive and not self._in_lane[Lane.PALACE])
        head = queue.upcoming(1)
        return not (head and head[0].exclusive and (self._in_lane[Lane.FREE] or self._in_lane[Lane.PALACE]))

    def _start(self, call: Call, now: float, *, behind_mine: bool = False) -> None:
        call.state = SENT
        call.started = now
        call.attempts += 1
        if not call.turn:
            self._turns += 1
            call.turn = self._turns
        call.begun = not behind_mine
        self.running[call.n] = call
        self._in_lane[call.rule.lane] += 1
        if behind_mine and self.limits.wait_s:
            heapq.heappush(self._run_heap, (max(now, call.since + self.limits.wait_s), call.n))
        elif call.run_limit:
            heapq.heappush(self._run_heap, (now + call.run_limit, call.n))

    def begun(self, n: int, now: float) -> None:
        """The engine runs call `n` from now on; until now it waited there behind a mine."""
        call = self.running.get(n)
        if call is None or call.begun:
            return
        call.begun = True
        call.started = now
        if call.run_limit:
            heapq.heappush(self._run_heap, (now + call.run_limit, n))

    def hints(self) -> list[Call]:
        """Waiting palace calls whose text may be embedded ahead of their turn; each is returned once."""
        if not self._in_lane[Lane.PALACE]:
            return []
        out = []
        for call in self.queues[Lane.PALACE].upcoming(self.limits.hints):
            if call.rule.embed and not call.hinted:
                call.hinted = True
                out.append(call)
        return out

    def finish(self, n: int) -> Call | None:
        """The engine is done with call `n`; None where it does not run (any more)."""
        call = self.running.pop(n, None)
        if call is not None:
            call.state = OVER
            self._in_lane[call.rule.lane] -= 1
        return call

    def withdraw(self, call: Call) -> bool:
        """Take a call back that has not started; False where it has."""
        if call.state != QUEUED:
            return False
        self.queues[call.rule.lane].withdraw(call)
        return True

    def lost(self) -> list[Call]:
        """The engine died: the calls that were in it, oldest first; nothing runs now."""
        calls = sorted(self.running.values(), key=lambda call: call.turn)
        for call in calls:
            self.finish(call.n)
        return calls

    def requeue(self, calls: list[Call], now: float) -> None:
        """Run these again before anything else, in their order; they wait anew, as a mine may have run for hours."""
        for call in calls:
            call.state = QUEUED
            call.since = now
            if self.limits.wait_s:
                self._waiting_since.append((call.since, call))
        for lane in LANES:
            self.queues[lane].push_front(call for call in calls if call.rule.lane == lane)

    def waiting(self) -> list[Call]:
        """All calls that wait, in no particular order."""
        return [call for lane in LANES for call in self.queues[lane]]

    def expire(self, now: float) -> Expired:
        """Withdraw what waited too long; name what runs too long (each call at most once)."""
        out = Expired()
        while (head := self._longest_waiting()) is not None and now >= head.since + self.limits.wait_s:
            self.withdraw(head)
            out.waited.append(head)
        while self._run_heap and self._run_heap[0][0] <= now:
            _, n = heapq.heappop(self._run_heap)
            late = self.running.get(n)
            if late is None:
                continue
            if not late.begun:
                if now >= late.since + self.limits.wait_s:  # else the entry is of its run in an engine that died
                    out.behind.append(late)
            elif late.run_limit and now >= late.started + late.run_limit:
                out.ran.append(late)
        return out

    def _longest_waiting(self) -> Call | None:
        entries = self._waiting_since
        while entries:
            since, call = entries[0]
            if call.state == QUEUED and call.since == since:  # else it ran meanwhile, and may wait again further behind
                return call
            entries.popleft()
        return None

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next, or None."""
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
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self.running and not any(len(queue) for queue in self.queues.values())
