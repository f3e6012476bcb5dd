"""Keeps the last errors, and writes lines of the log with the session that they are about."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ..protocol.text import printable
from .log_lines import about

if TYPE_CHECKING:
    import logging

    from ..system.clock import Clock
    from .machine.effects import CallFailed, Log
    from .machine.protocol import BrokerProtocol

_KEPT = 20
_WIDEST = 300  # characters of an error that is kept
_BURST = 20  # failed calls that are logged in an interval: without an engine, every call fails
_BURST_S = 10.0
_ENGINES_WORDS = "answered by mempalace with an error"


class Observer:
    """Keeps and logs failed calls.

    Attributes:
        errors: of the last failed calls, the newest last, as `status` shows them.
    """

    def __init__(self, protocol: BrokerProtocol, clock: Clock, log: logging.Logger) -> None:
        self.errors: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._protocol = protocol
        self._clock = clock
        self._log = log
        self._logged = 0
        self._until = 0.0

    def log(self, effect: Log) -> None:
        """Write a line."""
        getattr(self._log, effect.level)(effect.text, extra=about(effect.session))

    def call_failed(self, effect: CallFailed) -> None:
        """Keep an error and log it."""
        call, now = effect.call, self._clock.monotonic()
        if effect.text:
            self._protocol.dispatcher.traffic.failed(call, now)
        who = about(self._protocol.sessions.get(call.conn))
        error = {
            "at": round(self._clock.wall(), 1),
            "session": who.get("session"),
            "agent": who.get("agent") or None,
            "tool": call.tool,
            "code": effect.code,
            "text": printable(effect.text, _WIDEST) or _ENGINES_WORDS,
        }
        self.errors.append(error)
        self._write(error, who, now)

    def _write(self, error: dict[str, Any], who: dict[str, str], now: float) -> None:
        if now >= self._until:
            if self._logged > _BURST:
                self._log.warning("%d more calls failed", self._logged - _BURST)
            self._logged, self._until = 0, now + _BURST_S
        self._logged += 1
        if self._logged <= _BURST:
            text = "%s of session %s failed, code %d: %s"
            self._log.info(text, error["tool"], error["session"], error["code"], error["text"], extra=who)
