"""What runs beside a test, on a thread of its own: a server, a sampler, a fault."""

from __future__ import annotations

import threading
from socketserver import BaseServer
from types import TracebackType
from typing import Self


class Background:
    """Runs `run` on a thread until the block ends; what it raises is raised there, unless the block itself failed.

    Attributes:
        name: of the thread. end_s: how long `run` may take to return once `end` was called.
    """

    name = ""
    end_s = 10.0
    _failure: BaseException | None = None

    def run(self) -> None:
        """The work."""
        raise NotImplementedError

    def end(self) -> None:
        """Make `run` return."""
        raise NotImplementedError

    def _guarded(self) -> None:
        try:
            self.run()
        except BaseException as exc:  # noqa: BLE001 - raised again where the block ends
            self._failure = exc

    def __enter__(self) -> Self:
        self.name = self.name or type(self).__name__
        self._thread = threading.Thread(target=self._guarded, name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._thread.join(self.end_s)
        if exc is None:  # else the test has failed already: its own words count
            assert not self._thread.is_alive(), f"{self.name} hangs"
            if self._failure is not None:
                raise AssertionError(f"{self.name}: {self._failure!r}") from self._failure


class BackgroundServer(Background):
    """Serves while the block runs. `server`: one of the standard library; it is closed at the end."""

    def __init__(self, server: BaseServer) -> None:
        self.server = server

    def run(self) -> None:
        with self.server:
            self.server.serve_forever(0.05)

    def end(self) -> None:
        self.server.shutdown()
