"""The requests, answers and executions of one history, and the rules that every history must keep.

answers      each request exactly once; of the killed and the cancelled at most once, and never late; in time
no loss      what was answered "success" is in the palace
at most once a write that must not run twice left at most one trace
honesty      what was answered "not executed" left no trace, ever; only writes are answered "outcome unknown"
order        writes of one agent take effect in the order in which it sent them, lane by lane
freshness    a read shows every write that was answered before the read was asked
engine       one palace call at a time, exclusive ones alone; never two engines
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mempalace_broker import errors
from mempalace_broker.broker.machine.replay import STALE_LIBRARY
from mempalace_broker.broker.machine.scheduler import MINE

from .palace import ADD, APPEND, DELETE, READ, TOOLS, Disk, rule

NOT_EXECUTED = frozenset(
    {
        errors.NOT_EXECUTED,
        errors.WAIT_TIMEOUT,
        errors.ENGINE_DOWN,
        errors.OVERLOADED,
        errors.OTHER_PALACE,
        STALE_LIBRARY,
    }
)
Answer = tuple[float, dict[str, Any]]


@dataclass(slots=True)
class Asked:
    """One request: who, when, what; and the answers it got."""

    who: str
    order: int
    when: float
    method: str
    tool: str = ""
    token: str = ""
    cancelled: bool = False
    withdrawn: bool = False  # the shim has read the cancellation
    answers: list[Answer] = field(default_factory=list)
    ran: list[float] = field(default_factory=list)
    shown_before: frozenset[str] = frozenset()

    @property
    def code(self) -> int | None:
        """Error code of the answer, 0 for a result, None while there is none."""
        if not self.answers:
            return None
        error = self.answers[0][1].get("error")
        return error["code"] if error else 0

    @property
    def told(self) -> dict[str, Any]:
        """What the tool said."""
        told: dict[str, Any] = json.loads(self.answers[0][1]["result"]["content"][0]["text"])
        return told


class History:
    """Filled while the world turns; `faults` then names every rule that was broken."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], Asked] = {}
        self.open = 0
        self.broken: list[str] = []
        self.gone: dict[str, float] = {}
        self.slack: dict[str, float] = {}
        self._by_token: dict[str, Asked] = {}
        self._acked: dict[str, set[str]] = {"palace": set(), "log": set()}
        self._doomed: set[str] = set()  # tokens that an agent asked to delete

    # -- what happens

    def asked(self, who: str, request: dict[str, Any], now: float) -> None:
        if request["method"] == "notifications/cancelled":
            self._cancelled(who, request["params"]["requestId"])
        if "id" not in request:
            return
        params = request.get("params", {})
        tool, token = params.get("name", ""), params.get("arguments", {}).get("token", "")
        asked = Asked(who, len(self.requests), now, request["method"], tool, token)
        if tool in TOOLS and TOOLS[tool][0] == READ:
            asked.shown_before = frozenset(self._acked[TOOLS[tool][1]])
        elif tool and TOOLS[tool][0] == DELETE:
            if token not in self._doomed and token in self._acked["palace"]:
                asked.shown_before = frozenset({token})
            self._doomed.add(token)
        elif tool:
            self._by_token[token] = asked
        self.requests[who, json.dumps(request["id"])] = asked
        self.open += 1

    def _cancelled(self, who: str, id_: object) -> None:
        asked = self.requests.get((who, json.dumps(id_)))
        if asked is not None and not asked.answers and not asked.cancelled:
            asked.cancelled = True
            self.open -= 1

    def withdrawn(self, who: str, request: dict[str, Any]) -> None:
        """The shim has read a line of its agent: if that cancels a request, no answer may follow."""
        if request["method"] == "notifications/cancelled":
            asked = self.requests.get((who, json.dumps(request["params"]["requestId"])))
            if asked is not None and asked.method != "initialize":
                asked.withdrawn = True

    def answered(self, who: str, body: dict[str, Any], now: float) -> None:
        asked = self.requests.get((who, json.dumps(body.get("id"))))
        if asked is None:
            self.broken.append(f"{who} got an answer that it never asked for: {body}")
            return
        if asked.withdrawn:
            self.broken.append(f"answered after it was cancelled: {asked}")
        asked.answers.append((now, body))
        if len(asked.answers) == 1 and not asked.cancelled and who not in self.gone:
            self.open -= 1
        if asked.code == 0 and asked.tool and TOOLS[asked.tool][0] in (APPEND, ADD):
            self._acked[TOOLS[asked.tool][1]].add(asked.token)

    def killed(self, who: str) -> None:
        if who not in self.gone:
            self.gone[who] = 0.0
            for asked in self.requests.values():
                self.open -= asked.who == who and not asked.answers and not asked.cancelled

    def executes(self, tool: str, token: str, now: float) -> None:
        """The engine begins a call."""
        asked = self._by_token.get(token)
        if asked is not None and asked.tool == tool:
            asked.ran.append(now)

    def inside(self, counts: dict[str, int], tool: str, now: float, palace: int) -> None:
        """A call reached the engine; `counts` say how many are in it, by lane; `palace`: how many may be."""
        if counts["palace"] > palace or counts["free"] > 4:
            self.broken.append(f"too full at {now}: {counts}")
        if not rule(tool).known and counts["free"]:
            self.broken.append(f"an exclusive call beside others at {now}: {counts}")

    # -- the rules

    def faults(self, disk: Disk, longest: float) -> list[str]:
        """Every rule that was broken, in words; `longest`: seconds within which an answer is due."""
        out = list(self.broken)
        for asked in self.requests.values():
            out += self._answers(asked, longest)
            if asked.tool and asked.answers:
                out += self._honesty(asked, disk)
            if asked.tool and TOOLS[asked.tool][0] == APPEND:
                count = disk.tokens[TOOLS[asked.tool][1]].count(asked.token)
                if count > 1:
                    out.append(f"executed {count} times: {asked}")
        return out + self._order()

    def _answers(self, asked: Asked, longest: float) -> list[str]:
        out = []
        count = len(asked.answers)
        if count > 1:
            out.append(f"answered {count} times: {asked}")
        if not count and not asked.cancelled and asked.who not in self.gone:
            out.append(f"never answered: {asked}")
        if count and asked.tool != MINE:
            took = asked.answers[0][0] - asked.when
            if took > longest + self.slack.get(asked.who, 0.0):
                out.append(f"answered after {took:.1f} s: {asked}")
        return out

    def _honesty(self, asked: Asked, disk: Disk) -> list[str]:
        does, store = TOOLS[asked.tool]
        there = asked.token in disk.tokens[store]
        if does == READ:
            return self._read(asked)
        if asked.code == errors.RUN_TIMEOUT:
            return [f"a write was answered like a read: {asked}"]
        if does == DELETE:
            done = asked.code == 0 and asked.told["success"] and (asked.shown_before or "note" not in asked.told)
            if done and there:
                return [f"deleted, but still there: {asked}"]
            return (
                [f"deleted, and told otherwise: {asked}"] if asked.shown_before and asked.code == 0 and not done else []
            )
        if asked.code in NOT_EXECUTED and there:
            return [f"said not executed, but it was: {asked}"]
        if asked.code == 0 and asked.told.get("success") and not there and asked.token not in self._doomed:
            return [f"acknowledged, but lost: {asked}"]
        return []

    def _read(self, asked: Asked) -> list[str]:
        if asked.code == errors.OUTCOME_UNKNOWN:
            return [f"a read of unknown outcome: {asked}"]
        if asked.code != 0:
            return []
        missing = asked.shown_before - set(asked.told["found"]) - self._doomed
        return [f"a read misses {sorted(missing)}: {asked}"] if missing else []

    def _order(self) -> list[str]:
        out = []
        last: dict[tuple[str, str], tuple[float, Asked]] = {}
        for asked in sorted(self._by_token.values(), key=lambda asked: asked.order):
            if not asked.ran:
                continue
            lane = (asked.who, rule(asked.tool).lane)
            if lane in last and asked.ran[0] < last[lane][0]:
                out.append(f"ran too early: {asked}, before {last[lane][1]}")
            end = (
                asked.ran[0] if asked.tool == MINE else asked.ran[-1]
            )  # a mine lets others in, and runs again after them
            if lane not in last or end > last[lane][0]:
                last[lane] = (end, asked)
        return out
