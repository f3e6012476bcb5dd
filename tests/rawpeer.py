"""A bare MCP client on the broker's socket, without a shim and without hello: what `socat` would be."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from tests.harness import Broker
from tests.rpcproc import PATIENCE_S, NoAnswer


class RawPeer:
    """One connection, on the unix socket or as given. `lines`: what came so far; `eof`: whether the broker closed."""

    def __init__(self, broker: Broker, sock: socket.socket | None = None) -> None:
        if sock is None:
            path = next(end for end in broker.record["endpoints"] if end.startswith("unix:")).removeprefix("unix:")
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
        self.sock = sock
        self.lines: list[str] = []
        self.eof = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="raw-peer", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.sock.makefile("rb") as file:
            try:
                for line in file:
                    with self._changed:
                        self.lines.append(line.decode())
                        self._changed.notify_all()
            except OSError:
                pass  # closed under us, by `close` or by a broker that dropped us: the same to the test
        with self._changed:
            self.eof = True
            self._changed.notify_all()

    def send_bytes(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, message: Any) -> None:
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def wait(self, done: Callable[[list[str]], Any], timeout: float = PATIENCE_S) -> list[str]:
        """All lines so far, once `done(lines)`."""
        end = time.monotonic() + timeout
        with self._changed:
            while not done(self.lines):
                left = end - time.monotonic()
                if left <= 0 or self.eof:
                    raise NoAnswer(f"{'closed' if self.eof else 'nothing more'} after {self.lines[-3:]}")
                self._changed.wait(left)
            return list(self.lines)

    def wait_lines(self, count: int, timeout: float = PATIENCE_S) -> list[str]:
        """All lines so far, once there are at least `count`."""
        return self.wait(lambda lines: len(lines) >= count, timeout)

    def close_stdin(self) -> None:
        """Send no more, still listen."""
        self.sock.shutdown(socket.SHUT_WR)

    def release(self) -> None:
        with contextlib.suppress(OSError):  # the broker was quicker
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes the reader; a mere close would not
        self._reader.join(10)
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
