"""What is known of the server behind the relay, and when there is news to tell. Pure."""

from __future__ import annotations


class Behind:
    """Turns single observations into news: told once each time it changes.

    Attributes:
        port: of the server on loopback. listens: as last seen; None before the first look.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.listens: bool | None = None

    def saw(self, listens: bool) -> str:
        """Take in whether it listens; the line to print, empty when that is no news."""
        before, self.listens = self.listens, listens
        if before == listens:
            return ""
        if listens:
            return f"Studio listens on 127.0.0.1:{self.port}."
        if before is None:
            return (
                f"nothing listens on 127.0.0.1:{self.port} yet: type `/studio --no-browser --port {self.port}` in pi. "
                "This goes on by itself as soon as it does."
            )
        return f"nothing listens on 127.0.0.1:{self.port} any more; waiting for it."
