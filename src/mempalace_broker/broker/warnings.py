"""What is degraded in this broker: said once in the log, and in status for as long as it lives."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

_FEWER = "end agents that are not needed, or start the broker where more files may be open (ulimit -n)"


class Warnings:
    """Every warning given so far; `first`: the initial ones, each with its hint.

    Attributes:
        entries: each with `what` and `hint`, as `broker/status` shows them.
    """

    def __init__(self, log: logging.Logger, first: Iterable[tuple[str, str]] = ()) -> None:
        self.entries: list[dict[str, str]] = []
        self._log = log
        for what, hint in first:
            self.add(what, hint)

    def add(self, what: str, hint: str) -> None:
        """Warn, unless this was said before."""
        entry = {"what": what, "hint": hint}
        if entry not in self.entries:
            self.entries.append(entry)
            self._log.warning("%s", what)

    def callback_failed(self, message: str, exc: BaseException | None) -> None:
        """Report what a callback of the loop raised. Each connection that leaks raises when descriptors run out."""
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            self.add("too many files and connections were open: new sessions had to wait", _FEWER)
            return
        self._log.error("in the loop: %s", message, exc_info=exc)
        self.internal_error(exc)

    def internal_error(self, exc: BaseException | None) -> None:
        """Warn of a bug of ours; the caller has logged where it happened."""
        self.add(f"an internal error: {exc!r}", "see `mempalace-broker logs`; please report it")
