"""What an agent reads when its call was not answered by the engine: what happened, whether it is safe to send it again,
and what to look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import READ_ONLY
from ...protocol.jsonrpc import error_line
from .supervisor import EngineState

if TYPE_CHECKING:
    from ...protocol.jsonrpc import Message
    from .call import Call
    from .supervisor import Supervisor

DOWN_HINT = "Hint: `mempalace-broker doctor` says what is wrong; `mempalace-broker logs` shows the engine's own words."
UPGRADED_AGAIN = "not executed: mempalace was upgraded underneath each engine"
STORED_BUT_LOST = "it was executed and stored, but its answer was lost with the engine. Do not send it again."
_LIMIT = "MEMPALACE_MCP_TIMEOUT_MS"


def read_only_line(message: Message) -> bytes:
    """The answer to a call of a tool that writes in a read-only session: mempalace's own words."""
    tool = {"tool": message.params.get("name")}
    return error_line(message.id, READ_ONLY, "Server is in read-only mode; this tool is disabled", tool)


def unknown(call: Call) -> str:
    """About a write of unknown outcome; stands behind the reason."""
    look = f"check with {call.rule.check_with}" if call.rule.check_with else "check"
    return f"{call.tool}: it may or may not be stored. Before you send it again, {look}."


def engine_state(supervisor: Supervisor, now: float) -> str:
    """What state an engine that does not serve is in, without a full stop."""
    reason = supervisor.reason or "no reason known"
    if supervisor.state == EngineState.FATAL:
        return f"the mempalace engine can't start: {reason}"
    if supervisor.alive and not supervisor.reason:  # it starts, which needs none
        return f"the mempalace engine is {supervisor.state}"
    if supervisor.state != EngineState.UNAVAILABLE:
        return f"the mempalace engine is {supervisor.state}: {reason}"
    since = now - (supervisor.unavailable_since or supervisor.since)
    left = max(1.0, supervisor.since + supervisor.policy.look_s - now)
    state = f"has been unavailable for {since:.0f} s" if since >= 1 else "is unavailable"
    return f"the mempalace engine {state} ({reason}); a call in {left:.0f} s tries again"


def engine_down(supervisor: Supervisor, now: float) -> str:
    """Why calls can't run at present."""
    text = engine_state(supervisor, now)
    return f"{text}. Hint: {supervisor.hint}." if supervisor.hint else f"{text}. {DOWN_HINT}"


def waited(call: Call, wait_s: float, busy: list[str], supervisor: Supervisor, holder: str = "") -> str:
    """About a call that waited too long. `busy`: the tools in its lane. `holder`: who has mempalace's write lock."""
    hint = "`mempalace-broker status` shows what holds the lane."
    if busy:
        what = f"behind {busy[0]}"
    elif holder:
        what = f"for another process that works on the palace, {holder},"
        hint = "let that process finish, or end it; `mempalace-broker status` shows when it is gone."
    else:
        what = f"for the engine ({supervisor.state}: {supervisor.reason or 'starting'})"
    return (
        f"{call.tool} waited {wait_s:g} s ({_LIMIT}) {what} and was not executed. "
        f"It is safe to send it again. Hint: {hint}"
    )


def waited_behind_mine(call: Call, wait_s: float) -> str:
    """About a write that waited too long inside the engine."""
    return f"waited {wait_s:g} s inside the engine behind a mine: {unknown(call)}"


def ran_too_long(call: Call) -> str:
    """Why an engine is ended."""
    return f"{call.tool} ran longer than {call.run_limit:g} s ({_LIMIT})"


def poisonous(call: Call, how: str) -> str:
    """About a read that engines died of."""
    when = f"the last {call.attempts} times that the engine died ({how})"
    return f"{call.tool} was running {when}; it is not run again. {DOWN_HINT}"
