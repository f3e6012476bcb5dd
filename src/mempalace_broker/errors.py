"""Every error of the project, in one tree, with its JSON-RPC code and its exit code.

    BrokerError
    +-- UsageError             a flag, setting or settings file is invalid
    +-- PalaceError            the palace can't be resolved or used
    +-- EngineNotFound         no interpreter with mempalace
    +-- StateRootError         locks, record or socket can't be placed
    +-- BrokerUnavailable      no broker answers, or none could be started
    |   +-- StartFailed        we started one; it said why it could not serve
    +-- PalaceHeld             a broker on another kernel has the palace, or may have it
    +-- StopFailed             a broker or its engine keeps holding the palace
    +-- HandshakeRefused       a broker answers, but not for us (wire version, other palace)
    +-- DeadlineExceeded       an inner deadline ran out

Each message says what failed and where; its hint, which command helps. `mp-shim` imports this module: keep it lean.
JSON-RPC codes -32000..-32005 are mempalace's own; ours start at -32010.
"""

from __future__ import annotations

import errno

# JSON-RPC 2.0, section 5.1
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

READ_ONLY = -32003  # mempalace's own: the session is read-only

# ours
NOT_EXECUTED = -32010  # no broker or engine could take the call; safe to send again
OUTCOME_UNKNOWN = -32011  # a write was under way when its executor died or ran out of time
WAIT_TIMEOUT = -32012  # waited too long for its turn; not executed; safe to send again
RUN_TIMEOUT = -32013  # a read ran too long; the engine was replaced
ENGINE_DOWN = -32014  # the engine can't run at present; the message says why; not executed
OVERLOADED = -32015  # this session has too many calls waiting; not executed
OTHER_PALACE = -32016  # the caller's configuration names another palace or knowledge graph
NOT_AUTHENTICATED = -32017  # over TCP: the caller has not proved that it knows the token
NOT_ALLOWED = -32018  # for the broker's own machine only, and the caller is a guest

# exit codes of mempalace-broker and mp-shim, see docs/exit-codes.md
EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_FINDINGS = 4
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE: no broker could be reached or started
EXIT_NO_ENGINE = 70
EXIT_STATE_ROOT = 73  # EX_CANTCREAT
EXIT_HELD = 75  # EX_TEMPFAIL: another broker owns the palace
EXIT_CONFIG = 78  # EX_CONFIG
EXIT_LIMIT = 124  # `exclusive`, as timeout(1)
EXIT_CANNOT_RUN = 126  # as a shell
EXIT_NO_COMMAND = 127  # as a shell


_FILE_HINTS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room: your quota is used up",
    errno.EROFS: "mount it writable",
    errno.EACCES: "give yourself access to it",
    errno.EPERM: "give yourself access to it",
    errno.EIO: "check the disk that it is on",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "raise the system's limit of open files",
}


def file_hint(exc: BaseException, elsewhere: str = "", *, otherwise: str = "") -> str:
    """The step that helps after this error with the file that the message names.

    Args:
        elsewhere: how to name another file, if that is possible.
        otherwise: what helps where the kind of error does not show it; by default `elsewhere`, else `doctor`.
    """
    step = file_step(exc)
    if not step:
        return otherwise or elsewhere or "mempalace-broker doctor"
    return f"{step}, or {elsewhere}" if elsewhere else step


def file_step(exc: BaseException) -> str:
    """The same where the kind of error alone shows what helps; else ""."""
    own: str | None = getattr(exc, "hint", None)
    return _FILE_HINTS.get(getattr(exc, "errno", None) or 0, "") if own is None else own


class BrokerError(Exception):
    """Base of all; `hint` is the command or step that helps, or empty."""

    code = INTERNAL_ERROR
    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message with its hint."""
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


class UsageError(BrokerError):
    """A flag, setting or settings file is invalid."""

    code = NOT_EXECUTED
    exit_code = EXIT_CONFIG


class PalaceError(BrokerError):
    """The palace can't be resolved or used."""

    code = NOT_EXECUTED
    exit_code = EXIT_CONFIG


class EngineNotFound(BrokerError):
    """No interpreter with mempalace was found."""

    code = ENGINE_DOWN
    exit_code = EXIT_NO_ENGINE


class StateRootError(BrokerError):
    """Locks, record or socket can't be placed where they belong."""

    code = NOT_EXECUTED
    exit_code = EXIT_STATE_ROOT


class BrokerUnavailable(BrokerError):
    """No broker answers, or none could be started."""

    code = NOT_EXECUTED
    exit_code = EXIT_UNAVAILABLE


class StartFailed(BrokerUnavailable):
    """A broker was started and said why it could not serve."""


class PalaceHeld(BrokerError):
    """A broker on another kernel has the palace, or may have it, and we must not open it."""

    code = NOT_EXECUTED
    exit_code = EXIT_HELD


class StopFailed(BrokerError):
    """A broker or its engine was told to leave, or was killed, and still holds the palace."""

    code = INTERNAL_ERROR
    exit_code = EXIT_HELD


class HandshakeRefused(BrokerError):
    """A broker answers, but not for us: another wire version or another palace."""

    code = OTHER_PALACE
    exit_code = EXIT_HELD


class DeadlineExceeded(BrokerError):
    """A deadline ran out; the message names the step that was under way."""

    code = NOT_EXECUTED
    exit_code = EXIT_UNAVAILABLE
