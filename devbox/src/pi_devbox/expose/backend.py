"""Keep track of the server behind the relay, and report changes. Pure."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What an attempt to connect showed."""

    LISTENS = "listens"
    ABSENT = "absent"  # nothing holds the port
    STUCK = "stuck"  # something holds it, and does not accept


class Backend:
    """Turns observations into messages, one for each change.

    Attributes:
        port: of the server, on loopback. state: as last seen; None before the first look.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.state: State | None = None

    def observe(self, state: State) -> str:
        """Take an observation; return the line to print, empty if nothing changed."""
        before, self.state = self.state, state
        if before == state:
            return ""
        if state is State.LISTENS:
            return f"Studio listens on 127.0.0.1:{self.port}."
        if state is State.STUCK:
            return (
                f"Studio on 127.0.0.1:{self.port} is stuck: it accepts no connection. "
                f"Hint: `ss -ltnp 'sport = :{self.port}'` shows its process; end that, and start Studio again"
            )
        if before is None:
            return (
                f"nothing listens on 127.0.0.1:{self.port} yet: type `/studio --no-browser --port {self.port}` in pi. "
                "The relay works as soon as Studio listens."
            )
        return f"nothing listens on 127.0.0.1:{self.port} any more; waiting for it."
