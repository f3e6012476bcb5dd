"""One connection as the protocol sees it: who greeted, which calls are open, what was counted."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ...errors import OTHER_PALACE, OVERLOADED

if TYPE_CHECKING:
    from ...protocol.tools import ToolRule
    from .call import Call

MAX_NAME = 64


class Origin(StrEnum):
    """Where a client runs."""

    HOST = "host"  # beside the broker, as the palace's own user: it may do whatever that user may
    GUEST = "guest"  # in a container, or on another machine: it gets the memory and nothing else


def is_name(text: object) -> bool:
    """Whether a client's session id is fit for the journal: letters and digits, at most 64."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isascii() and text.isalnum()


class Session:
    """State of one connection. `ordinal` counts its lines, the first is 1; times in monotonic seconds.

    `origin` says what the client may do; it can only be lowered.
    """

    __slots__ = (
        "agent",
        "answered",
        "by_id",
        "client",
        "conn",
        "connection",
        "counted",
        "finishing",
        "graph_refused",
        "greeted",
        "name",
        "open_calls",
        "opened",
        "ordinal",
        "origin",
        "pid",
        "refused",
    )

    def __init__(self, conn: int, now: float, pid: int, prefix: str, origin: Origin = Origin.HOST) -> None:
        self.conn = conn
        self.opened = now
        self.origin = origin
        self.pid = pid
        self.name = f"{prefix}{conn}"
        self.connection = 0
        self.client = "raw"
        self.agent = ""
        self.greeted = False
        self.counted = False  # it asked for more than the status
        self.refused = False  # its hello was refused: nothing more of it is read
        self.finishing = False  # it sends no more; close it once it has its answers
        self.graph_refused = ""
        self.ordinal = 0
        self.answered = 0
        self.by_id: dict[str, list[Call]] = {}
        self.open_calls = 0  # calls not answered yet

    def greet(self, name: str, connection: int, client: str, pid: int) -> None:
        """Its hello was accepted: from now on its writes are named by the client's own session."""
        self.name, self.connection, self.client, self.pid = name, connection, client, pid
        self.greeted = True

    def introduce(self, info: object) -> None:
        """Note the name that the agent gave in `initialize`, for status."""
        name = info.get("name") if isinstance(info, dict) else None
        if isinstance(name, str) and name and not self.agent:
            self.agent = name[:MAX_NAME]

    def key(self, part: int = 0) -> str:
        """Journal key of the line just counted; `part` numbers the elements of a batch."""
        base = f"{self.name}.{self.connection}.{self.ordinal}"
        return f"{base}.{part}" if part else base

    def key_of(self, connection: int, ordinal: int) -> str:
        """Journal key of a line of an earlier connection."""
        return f"{self.name}.{connection}.{ordinal}"

    def refusal(self, rule: ToolRule, most_calls: int) -> tuple[int, str] | None:
        """Why one more call, to the tool of `rule`, is refused: code and text, or None."""
        if rule.graph and self.graph_refused:
            return OTHER_PALACE, self.graph_refused
        if self.open_calls >= most_calls:
            text = f"not executed: {self.open_calls} calls of this session wait already. Send it again later."
            return OVERLOADED, text
        return None

    def add(self, key: str, call: Call) -> None:
        """Remember an open call under its id."""
        self.by_id.setdefault(key, []).append(call)
        self.open_calls += 1

    def remove(self, key: str, call: Call) -> None:
        """Forget an open call."""
        calls = self.by_id.get(key)
        if calls and call in calls:
            calls.remove(call)
            self.open_calls -= 1
            if not calls:
                del self.by_id[key]
