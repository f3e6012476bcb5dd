"""The errors that a command of the devbox ends with, and its exit codes.

    DevboxError        stops the command
    +-- ConfigError    an option, a variable or a file makes no sense
    +-- BuildFailed    a command of a build failed (image.runner)

A message says what is wrong and where; `hint` is the step that helps.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2  # click's own, for an unknown command or option
EXIT_CONFIG = 78  # EX_CONFIG
EXIT_INTERRUPTED = 130  # after Ctrl-C
EXIT_PIPE = 141  # as a shell reports a command that SIGPIPE ended


class DevboxError(Exception):
    """Stops a command; `hint` is the step that helps, or empty."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message, then the hint."""
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


class ConfigError(DevboxError):
    """An option, an environment variable or a file makes no sense."""

    exit_code = EXIT_CONFIG
