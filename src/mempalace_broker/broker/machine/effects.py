"""What the protocol wants done. The app carries these out in order; the machines reach the world in no other way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call
    from .session import Session
    from .supervisor import EngineAction


@dataclass(slots=True)
class Send:
    """Send bytes, whole lines, on a connection."""

    conn: int
    data: bytes


@dataclass(slots=True)
class SendStatus:
    """Answer `broker/status` with a snapshot taken now; `brief`: what a guest may know of it."""

    conn: int
    id: Any
    brief: bool = False


@dataclass(slots=True)
class SendWelcome:
    """Answer a hello. Where `with_mounts`, the mount table goes in under `files.mounts`; for a `guest`, a nonce as
    `files.proof`.
    """

    conn: int
    id: Any
    welcome: dict[str, Any]
    with_mounts: bool
    guest: bool = False


@dataclass(slots=True)
class CheckPaths:
    """Find out whether the guest on a connection may name these paths; then report `paths_checked` for the call `n`."""

    conn: int
    n: int
    paths: list[str]


@dataclass(slots=True)
class Close:
    """Close a connection once its bytes are out; `reason` is for the log."""

    conn: int
    reason: str


@dataclass(slots=True)
class ConfirmLease:
    """Make sure that the palace is still ours, then report `lease_confirmed` or `lease_lost` to the dispatcher."""


@dataclass(slots=True)
class ToEngine:
    """Send bytes, one frame, to the engine."""

    data: bytes


@dataclass(slots=True)
class ControlEngine:
    """Start or end the engine process."""

    action: EngineAction


@dataclass(slots=True)
class SaveAnswers:
    """Store the cache of constant answers."""

    data: bytes


@dataclass(slots=True)
class PublishTools:
    """Publish what the engine has just reported: its tools, and its search configuration."""


@dataclass(slots=True)
class OpenPage:
    """Answer a request for a link that opens the page in a browser."""

    conn: int
    id: Any


@dataclass(slots=True)
class Log:
    """Write a line to broker.log; `level` names a method of logging.Logger; the line is about `session`."""

    level: str
    text: str
    session: Session | None = None


@dataclass(slots=True)
class CallFailed:
    """Note that a call was answered with an error.

    `text` is the broker's own; "" if the error is the engine's, whose text may quote the memory.
    """

    call: Call
    code: int
    text: str = ""


@dataclass(slots=True)
class Retire:
    """Take no more clients: remove the record and the socket's name, close the listeners. `again`: the next broker is
    about to come, and takes over what can be handed over.
    """

    again: bool = False


@dataclass(slots=True)
class Quit:
    """Everything is drained: leave, for this reason."""

    reason: str


Effect = (
    Send
    | SendStatus
    | SendWelcome
    | CheckPaths
    | OpenPage
    | CallFailed
    | Close
    | ConfirmLease
    | ToEngine
    | ControlEngine
    | SaveAnswers
    | PublishTools
    | Log
    | Retire
    | Quit
)
