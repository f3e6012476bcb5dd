"""The engine's two pipes: frames in, frames out; on descriptors of their own, because mempalace moves fd 1."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

from ..protocol.engine_frames import Frame, FrameDecoder
from ..system.hangup import Hangup

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUFFER_BYTES = 1 << 18
_POLL_MS = 200


class BrokerPipes:
    """Both directions of the connection to the broker.

    Args:
        rfd: descriptor to read frames from; end of file means that the broker is gone.
        wfd: descriptor to write frames to.
    """

    def __init__(self, rfd: int, wfd: int) -> None:
        self._rfd = rfd
        self._wfd = wfd
        self._lock = threading.Lock()
        self._reading = False

    def exit_if_abandoned(self) -> None:
        """Body of a thread: end this process if the broker goes away before `frames` reads from it.

        Importing mempalace can take seconds on a busy machine, and the next broker waits for this process.
        """
        poller = select.poll()
        hangup = Hangup(self._rfd, poller, writes=False)
        while not self._reading:
            if hangup.seen(poller.poll(_POLL_MS)) and not self._reading:
                os._exit(0)

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the broker closes its end.

        Raises:
            FrameError: the stream is garbled.
        """
        self._reading = True
        decoder = FrameDecoder()
        buffer = memoryview(bytearray(_BUFFER_BYTES))  # os.read would allocate as much for each frame
        while True:
            data = bytes(buffer[: os.readv(self._rfd, (buffer,))])
            if not data:
                return
            yield from decoder.feed(data)

    def send(self, frame: Frame) -> bool:
        """Write a whole frame; return False if the broker no longer reads."""
        view = memoryview(frame.encode())
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._wfd, view) :]
            except OSError:  # EPIPE: the reader sees the end of file and ends the process
                return False
        return True
