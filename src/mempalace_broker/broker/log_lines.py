"""Lines of broker.log: one a message, whatever a client or an engine has put into it."""

from __future__ import annotations

import logging

from ..protocol.text import printable

_LONGEST = 10_000  # characters


class LineFormatter(logging.Formatter):
    """Makes messages printable, and sets the lines of a traceback off, so that none looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a message."""
        record.message = printable(record.message, _LONGEST)
        return super().formatMessage(record)

    def formatException(self, ei: logging._SysExcInfoType) -> str:
        """The lines of a traceback."""
        return "\n".join(f"  | {printable(line, _LONGEST)}" for line in super().formatException(ei).split("\n"))
