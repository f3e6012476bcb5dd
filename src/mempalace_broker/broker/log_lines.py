"""Lines of broker.log: one per message, whatever a client or an engine put into it; as text or as JSON."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

from ..protocol.text import printable
from ..system.logs import without_contents

if TYPE_CHECKING:
    from .machine.session import Session

LINE = "%(asctime)s.%(msecs)03d %(levelname)s %(message)s"
LINE_TIME = "%Y-%m-%dT%H:%M:%S"
ENGINES_WORDS = "engines_words"  # attribute of a record: the engine's output, the only text that its message quotes
_LONGEST = 10_000  # characters


def about(session: Session | None) -> dict[str, str]:
    """Return the session that a line is about, for `extra` of a logging call."""
    return {} if session is None else {"session": session.public, "agent": session.agent}


class LineFormatter(logging.Formatter):
    """Makes messages printable, and sets the lines of a traceback off, so that none looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a message."""
        record.message = printable(record.message, _LONGEST)
        return super().formatMessage(record)

    def formatException(self, ei: logging._SysExcInfoType) -> str:
        """The lines of a traceback."""
        return "\n".join(f"  | {printable(line, _LONGEST)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, session, agent, message, and traceback if there is one.

    Such logs are sent to other places, so they quote nothing that may come from the memory: of the engine's output, and
    of a traceback, only the places and the kinds of errors are left.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        words = getattr(record, ENGINES_WORDS, None)
        message = record.getMessage() if words is None else record.msg % without_contents(words)
        line = {
            "time": f"{time.strftime(LINE_TIME, time.gmtime(record.created))}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "session": getattr(record, "session", "") or None,
            "agent": getattr(record, "agent", "") or None,
            "message": printable(message, _LONGEST),
        }
        if record.exc_info:
            traceback = map(without_contents, self.formatException(record.exc_info).split("\n"))
            line["traceback"] = [printable(text, _LONGEST) for text in traceback]
        return json.dumps(line)
