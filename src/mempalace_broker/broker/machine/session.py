"""One connection as the protocol sees it: who greeted, which calls are open, what was counted."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ...errors import OTHER_PALACE, OVERLOADED
from ...protocol.jobs import JOB
from ...protocol.jsonrpc import TOOLS_CALL
from ...protocol.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...protocol.jsonrpc import Message
    from ...protocol.long_line import LongLine
    from ...protocol.tools import ToolRule
    from .call import Call
    from .scheduler import Limits

MAX_NAME = 64
MIN_SECRET = 32
_PUBLIC = 8  # digits of the name that status shows
_KEY = 32  # digits of a journal key


class Origin(StrEnum):
    """Where a client runs."""

    HOST = "host"  # beside the broker, as the palace's own user: it may do whatever that user may
    USER = "user"  # over HTTP, by the token of the user's own programs: the memory, and any file of the user's
    GUEST = "guest"  # in a container, or on another machine: it gets the memory and nothing else


def is_name(text: object) -> bool:
    """Whether a client may call its session so: letters and digits, at most 64."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isascii() and text.isalnum()


def is_secret(text: object) -> bool:
    """Whether a session may have this secret: 32 to 64 letters and digits."""
    return is_name(text) and len(str(text)) >= MIN_SECRET


@dataclass(slots=True, eq=False)
class Session:
    """State of one connection. `ordinal` counts its lines, the first is 1; times in monotonic seconds.

    Attributes:
        flow: its calls take turns with those of other flows, not with those of its own. A connection is a flow;
            requests over HTTP are one where they belong together.
        public: what status calls it. name: what its client calls it, "" if it did not greet with a secret.
        greeted: it is the session of a secret, and may ask for the outcomes of its writes.
        read_only: tools that write are neither listed nor run.
        origin: what the client may do; it can only be lowered.
    """

    conn: int
    opened: float
    pid: int
    public: str
    origin: Origin = Origin.HOST
    flow: int = 0
    name: str = ""
    secret: bytes = b""
    connection: int = 0
    client: str = "raw"
    agent: str = ""
    greeted: bool = False
    counted: bool = False  # it asked for more than the status
    asks_only: bool = False  # one request over HTTP: no method of the broker's own is for it
    refused: bool = False  # its hello was refused: nothing more of it is read
    finishing: bool = False  # it sends no more; close it once it has its answers
    graph_refused: str = ""
    home: str = ""  # the client's $HOME
    read_only: bool = False
    ordinal: int = 0
    answered: int = 0
    by_id: dict[str, list[Call]] = field(default_factory=dict)
    open_calls: int = 0  # calls not answered yet
    held: int = 0  # their bytes
    batch: Iterator[tuple[int, Any]] | None = None  # elements of a batch that are still to be read
    long: LongLine | None = None  # the line under way, where it is read in slices

    def greet(self, client: str, pid: int) -> None:
        """Its hello was accepted."""
        self.client, self.pid = client, pid

    def bind(self, name: str, secret: str, connection: int) -> None:
        """From now on its writes are named by the client's own secret."""
        self.name, self.secret, self.connection = name, secret.encode("ascii"), connection
        self.public = hashlib.sha256(b"session " + self.secret).hexdigest()[:_PUBLIC]
        self.greeted = True

    def is_of(self, secret: str) -> bool:
        """Whether it was bound by the same secret."""
        return hmac.compare_digest(self.secret, secret.encode("ascii"))

    def method_of(self, message: Message) -> str:
        """Return the method as which a request is treated: a job, which only the user may hand in, is a call."""
        return TOOLS_CALL if message.method == JOB and self.origin is Origin.HOST else message.method

    def introduce(self, info: object) -> bool:
        """Note the agent's name from `initialize`, for `status`; return whether it is the first."""
        name = info.get("name") if isinstance(info, dict) else None
        if not isinstance(name, str) or not name or self.agent:
            return False
        self.agent = printable(name, MAX_NAME)
        return True

    def began(self) -> str:
        """Return a line about its beginning, for the log."""
        return f"session {self.public} began: {self.agent} by {self.client}, pid {self.pid or 'unknown'}, {self.origin}"

    def ended(self, now: float) -> str:
        """Return a line about its end, for the log."""
        return f"session {self.public} ended after {now - self.opened:.0f} s and {self.answered} answers"

    def key(self, part: int = 0) -> str:
        """Journal key of the line just counted; `part` numbers the elements of a batch."""
        return self.key_of(self.connection, self.ordinal, part)

    def key_of(self, connection: int, ordinal: int, part: int = 0) -> str:
        """Journal key of a line of any connection of this session: only who knows the secret can work it out."""
        if not self.secret:
            return f"{self.public}.{connection}.{ordinal}" + (f".{part}" if part else "")
        return hmac.digest(self.secret, b"%d.%d.%d" % (connection, ordinal, part), "sha256").hex()[:_KEY]

    def refusal(self, rule: ToolRule, size: int, limits: Limits, held: int) -> tuple[int, str] | None:
        """Why one more call, to the tool of `rule`, is refused: code and text, or None.

        Args:
            size: its bytes. held: the bytes of all open calls of all sessions.
        """
        if rule.graph and self.graph_refused:
            return OTHER_PALACE, self.graph_refused
        if self.open_calls >= limits.session_calls:
            text = f"not executed: {self.open_calls} calls of this session wait already. Send it again later."
            return OVERLOADED, text
        own = self.held + size
        if self.open_calls and own > limits.session_bytes:
            return OVERLOADED, f"not executed: calls of {self.held} bytes of this session wait. Send it again later."
        if held + size > limits.all_bytes and own > limits.spare_bytes:
            return OVERLOADED, f"not executed: calls of {held} bytes wait already. Send it again later."
        return None

    def add(self, key: str, call: Call) -> None:
        """Remember an open call under its id."""
        self.by_id.setdefault(key, []).append(call)
        self.open_calls += 1
        self.held += call.size

    def remove(self, key: str, call: Call) -> None:
        """Forget an open call."""
        calls = self.by_id.get(key)
        if calls and call in calls:
            calls.remove(call)
            self.open_calls -= 1
            self.held -= call.size
            if not calls:
                del self.by_id[key]
