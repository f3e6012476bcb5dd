"""How a shim reaches brokers, and what it finds out about files. Each import waits until it is needed."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..protocol.palace import FileView
    from ..route.attempt import Connected
    from ..route.finder import RouteFinder
    from ..system.paths import Context

ATTEMPT_S = 45.0  # one attempt to find or start a broker; the next request begins another
_CACHE_LIMIT = 16 * 1024 * 1024  # bytes


class Dialer:
    """Dials the brokers of one palace, one after another.

    Args:
        options: the command line's, by name.
        client: the shim's name and version.

    Attributes:
        context: the palace and its files, once `dial` has resolved them.
    """

    def __init__(self, options: dict[str, str], client: str) -> None:
        self._options = options
        self._started_by = f"{client} pid {os.getpid()}"
        self._finder: RouteFinder | None = None
        self._found: Connected | None = None
        self.context: Context | None = None

    def dial(self) -> RouteFinder:
        """Begin an attempt. Raises BrokerError where the palace can't be resolved; the next one may succeed."""
        from ..route.attempt import StartPolicy
        from ..route.discover import meant_palace
        from ..route.finder import RouteFinder
        from ..system.clock import Deadline
        from ..system.paths import Context

        env, given = os.environ, self._options.get
        identity = meant_palace(env, given("palace"), given("backend"))
        self.context = context = Context(identity, env)
        deadline = Deadline.after(context.clock, ATTEMPT_S)
        self._finder = RouteFinder(context, deadline, StartPolicy(started_by=self._started_by))
        return self._finder

    def keep_private(self) -> None:
        """Keep to ourselves what we have in memory."""
        from ..system.startup import keep_memory_private

        keep_memory_private()

    def view(self, found: Connected) -> FileView:
        """The attempt succeeded: how this side sees the files, for hello on that connection."""
        assert self._finder is not None, "an attempt comes first"
        self._found = found
        return self._finder.view(found)

    def verify_palace(self, welcome: Mapping[str, Any]) -> str:
        """Why the broker that sent `welcome` is not the one of our palace; "" if it is."""
        assert self._finder is not None, "an attempt comes first"
        assert self._found is not None, "a connection comes first"
        return self._finder.verify_palace(self._found, welcome)

    def translate_paths(self, paths: list[str], files: Mapping[str, Any]) -> dict[str, str | None]:
        """The broker's names for our paths, None where there is none. Raises BrokerError where the settings are wrong.

        Args:
            paths: absolute.
            files: what the broker's welcome says of its files.
        """
        from ..route.translate import prove, translate

        assert self.context is not None, "an attempt comes first"
        names = {path: translate(self.context, path, files) for path in paths}
        for path, there in names.items():
            if there is not None:
                prove(path, files.get("proof"))
        return names

    def read_answers(self) -> bytes | None:
        """The broker's cache of constant answers, None if there is none."""
        try:
            return self.context.files.answers.read(_CACHE_LIMIT) if self.context is not None else None
        except OSError:
            return None
