"""Keep track of whether the server behind the relay listens, and report changes. Pure."""

from __future__ import annotations


class Backend:
    """Turns observations into messages, one for each change.

    Attributes:
        port: of the server, on loopback. listens: as last seen; None before the first look.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.listens: bool | None = None

    def observe(self, listens: bool) -> str:
        """Take an observation; return the line to print, empty if nothing changed."""
        before, self.listens = self.listens, listens
        if before == listens:
            return ""
        if listens:
            return f"Studio listens on 127.0.0.1:{self.port}."
        if before is None:
            return (
                f"nothing listens on 127.0.0.1:{self.port} yet: type `/studio --no-browser --port {self.port}` in pi. "
                "The relay works as soon as Studio listens."
            )
        return f"nothing listens on 127.0.0.1:{self.port} any more; waiting for it."
