"""The terminal of a live screen: keys, and the signals that suspend or resize it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from rich.console import Console

_QUIT = (b"q", b"Q", b"\x1b")  # a lone Esc; other keys send more after it


def can_be_drawn() -> bool:
    """Whether stdin and stdout are a terminal on which the cursor can be moved."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


class Keyboard:
    """One key at a time, without echo. Ctrl-C stays a signal, and so does Ctrl-Z, which gives the terminal back.

    Args:
        out: draws on the terminal's alternate screen.
        wakes: a descriptor that becomes readable when signals arrive; its bytes are their numbers.
    """

    def __init__(self, out: Console, wakes: int) -> None:
        self._out = out
        self._wakes = wakes
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)

    def quit_pressed(self, seconds: float) -> bool:
        """Wait for a key or a signal, at most `seconds`; return whether to leave."""
        ready, _, _ = select.select([self._fd, self._wakes], [], [], seconds)
        if self._wakes in ready and signal.SIGTSTP in os.read(self._wakes, 64):
            self._suspend()
            return False
        if self._fd not in ready:
            return False
        typed = os.read(self._fd, 64)
        return not typed or typed in _QUIT  # nothing: the terminal is gone

    def take(self) -> None:
        """Read each key at once, without waiting for Enter."""
        tty.setcbreak(self._fd)

    def give_back(self) -> None:
        """Restore the terminal."""
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _suspend(self) -> None:
        self._out.set_alt_screen(False)
        self._out.show_cursor()
        self.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.take()
        self._out.set_alt_screen(True)
        self._out.show_cursor(False)


@contextlib.contextmanager
def keyboard(out: Console) -> Iterator[Keyboard]:
    """Take the keyboard for the duration of the block, then restore the terminal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    old_handlers = {number: signal.signal(number, _noted) for number in (signal.SIGWINCH, signal.SIGTSTP)}
    keys = Keyboard(out, reader)
    try:
        keys.take()
        yield keys
    finally:
        keys.give_back()
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        os.close(reader)
        os.close(writer)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wakeup descriptor gets the signal's number."""
