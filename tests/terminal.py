"""A program on a terminal of its own, whose keyboard a test has."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
from collections.abc import Mapping
from pathlib import Path

from tests.proctools import PATIENCE_S, eventually

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """Starts a program, which is looked up in the PATH of its environment.

    Attributes:
        raw: all that it has written. shown: its text without escapes, since what `sees` found last.
        before: the terminal's attributes at the start.
    """

    def __init__(self, *argv: str, env: Mapping[str, str], cwd: Path | None = None) -> None:
        self.raw = b""
        self.shown = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(cwd or ".")
                os.execvpe(argv[0], argv, env)
            finally:
                os._exit(127)
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.fd)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def sees(self, text: str, timeout: float = PATIENCE_S) -> None:
        """Wait until a text was shown, after whatever was seen before."""

        def seen() -> bool:
            self._read()
            _, found, after = self.shown.partition(text)
            if found:
                self.shown = after
            return bool(found)

        eventually(seen, timeout, f"{text!r} on the terminal")

    def ended(self) -> int:
        """Wait for its end; the exit code, and nothing is left of what it did to the terminal."""
        _, status = eventually(self._reaped, what="the end of the command")
        self._read()
        assert termios.tcgetattr(self.fd)[3] == self.before[3], "echo and lines are as they were"
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def hang_up(self) -> None:
        """Close it, and wait for the program's end."""
        os.close(self.fd)
        os.waitpid(self.pid, 0)

    def _read(self) -> None:
        while select.select([self.fd], [], [], 0.05)[0]:
            try:
                part = os.read(self.fd, 1 << 16)
            except OSError:  # its end, as Linux reports it
                return
            if not part:
                return
            self.raw += part
            self.shown += _ESCAPES.sub("", part.decode("utf-8", "replace"))

    def _reaped(self) -> tuple[int, int] | None:
        self._read()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return (pid, status) if pid else None
