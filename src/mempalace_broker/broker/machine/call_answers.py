"""Answers calls, each once: with the engine's line, or with an error that says whether the call may have run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import errors
from ...protocol.jsonrpc import error_line
from . import failure_texts as texts
from .call import Call, CallState
from .effects import CallFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .effects import Effect


class CallAnswers:
    """The part of the dispatcher that answers calls.

    Args:
        reply: takes (call, line), once for each call that is to be answered. effects: where effects are added.
    """

    def __init__(self, reply: Callable[[Call, bytes], None], effects: list[Effect]) -> None:
        self.counters = dict.fromkeys(("errors", "timeouts", "unknown_outcomes", "engine_restarts", "replayed"), 0)
        self._reply = reply
        self._effects = effects

    def _answer(self, call: Call, line: bytes) -> None:
        if not call.answered:
            call.answered = True
            self._reply(call, line)

    def _fail(self, call: Call, code: int, text: str) -> None:
        if not call.answered:
            self.counters["errors"] += 1
            self.counters["unknown_outcomes"] += code == errors.OUTCOME_UNKNOWN
            self._effects.append(CallFailed(call, code, text))
        self._answer(call, error_line(call.id, code, text))

    def fail_waiting(self, call: Call, code: int, text: str) -> None:
        """Answer a call that was withdrawn: not executed, unless an engine died in the middle of it."""
        if call.writes and call.may_have_run:
            why = "an engine died while it ran, and it could not be run again"
            self._fail(call, errors.OUTCOME_UNKNOWN, f"{why}. {texts.unknown(call)}")
        else:
            self._fail(call, code, text)

    def abandon(self, call: Call, text: str) -> None:
        """Answer a call because the broker leaves: `text` says that it was not executed."""
        if call.state == CallState.SENT and call.writes:
            why = "the broker is leaving while the engine runs"
            self._fail(call, errors.OUTCOME_UNKNOWN, f"{why} {texts.unknown(call)}")
        else:
            self.fail_waiting(call, errors.NOT_EXECUTED, text)
