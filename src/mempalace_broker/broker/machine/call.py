"""One `tools/call` on its way through the broker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from ...protocol.tools import NO_LIMIT, Lane, Replay, ToolRule, rule_for

if TYPE_CHECKING:
    from ...protocol.jsonrpc import Message

NO_SUCH_TOOL = ToolRule("", store="", lane=Lane.FREE, writes=False, replay=Replay.READ, known=False)
_RECONNECT = "mempalace_reconnect"
_NAME_CHARS = 64


class CallState(Enum):
    """QUEUED -> SENT -> OVER; back to QUEUED where a dead engine left it to the next one."""

    QUEUED = auto()
    SENT = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class Call:
    """One tools/call; times in monotonic seconds.

    Attributes:
        n: the broker's own number for it. conn: the connection that it came by. flow: as of its session.
        key: its name in the journal, "" of a read.
        raw: the client's line, b"" once it can't run any more. size: the line's length.
        exclusive: nothing else may run beside it.
        since: when it last began to wait. attempts: how many engines it was sent to.
        turn: its place in the order in which calls were first sent to an engine; 0 before that.
        begun: False while it waits inside the engine, behind a mine.
        was_stale: an engine refused it because mempalace had been upgraded underneath.
        confined: a guest's: it may read no file but those that its arguments name.
        file, files: the number of the file that a mine works on, of how many; 0 while that isn't known.
        may_have_run: an engine died in the middle of it, so nobody may say that it was not executed.
    """

    n: int
    conn: int
    flow: int
    key: str
    id: object
    raw: bytes
    tool: str
    rule: ToolRule
    arrived: float
    run_limit: float | None
    writes: bool
    replay: Replay
    size: int = 0
    exclusive: bool = False
    state: CallState = CallState.QUEUED
    started: float = 0.0
    attempts: int = 0
    answered: bool = False
    prefetched: bool = False
    since: float = 0.0
    turn: int = 0
    was_stale: bool = False
    may_have_run: bool = False
    begun: bool = True
    confined: bool = False
    file: int = 0
    files: int = 0


def call_of(
    message: Message, raw: bytes, rule: ToolRule, *, n: int, conn: int, flow: int, key: str, run_s: float, now: float
) -> Call:
    """The call that a `tools/call` request asks for. `run_s`: the default running limit, 0 = none."""
    arguments = message.params.get("arguments")
    own = rule.own_limit_s(arguments)
    run_limit: float | None = None
    if own != NO_LIMIT and run_s:
        run_limit = run_s if own is None else own
    return Call(
        n=n,
        conn=conn,
        flow=flow,
        key=key,
        id=message.id,
        raw=raw,
        tool=rule.name or str(message.params.get("name"))[:_NAME_CHARS],
        rule=rule,
        arrived=now,
        run_limit=run_limit,
        writes=rule.may_write(arguments),
        replay=rule.replay_for(arguments),
        size=len(raw),
        exclusive=(not rule.known and rule is not NO_SUCH_TOOL) or rule.name == _RECONNECT,
    )


def rule_of(tool: object, offered: list[object] | None) -> ToolRule:
    """The rule for a tool that a client named. `offered`: the engine's tools; None where they are not known.

    A tool that neither the table nor the engine knows gets NO_SUCH_TOOL: it goes to the engine, which refuses it.
    """
    rule = rule_for(tool)
    if rule.known or offered is None:
        return rule
    known = any(isinstance(entry, dict) and entry.get("name") == tool for entry in offered)
    return rule if known else NO_SUCH_TOOL
