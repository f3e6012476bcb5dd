"""Whether the other side of a pipe, socket or terminal is gone, on either system. `mp-shim` imports it on macOS."""

from __future__ import annotations

import errno

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

    from .darwin import HangupWatch


class Hangup:
    """Lets a poll object report that the other side of a descriptor is gone.

    Args:
        fd: which that object does not watch otherwise. writes: we write to it, and its reader may leave; else we read.
    """

    def __init__(self, fd: int, poller: select.poll, *, writes: bool) -> None:
        self._fd = fd
        self._gone = False
        self._watch: HangupWatch | None = None
        if not kernel.MACOS:
            poller.register(fd, 0)  # Linux reports a hang-up even so; macOS then reports nothing
            return
        from select import POLLIN

        from .darwin import HangupWatch

        try:
            self._watch = HangupWatch(fd, writes=writes)
        except OSError as exc:
            self._fd, self._gone = -1, exc.errno == errno.EPIPE  # else a device, which nobody leaves
            return
        self._fd = self._watch.fileno()
        poller.register(self._fd, POLLIN)

    def seen(self, events: list[tuple[int, int]]) -> bool:
        """Whether it is gone, by what the poll object has just returned."""
        if any(fd == self._fd for fd, _ in events):
            self._gone = self._watch is None or self._watch.gone()
        return self._gone
