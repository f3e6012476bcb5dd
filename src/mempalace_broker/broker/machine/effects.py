"""What the hub wants done. The application carries these out in order; nothing else in core reaches the world."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Send:
    """Bytes for a connection; whole lines."""

    conn: int
    data: bytes


@dataclass(slots=True)
class Close:
    """Close a connection once its bytes are out; `reason` is for the log."""

    conn: int
    reason: str


@dataclass(slots=True)
class ToEngine:
    """Bytes for the engine's pipe: one frame."""

    data: bytes


@dataclass(slots=True)
class Engine:
    """An effect of supervision: SPAWN, TERM, KILL or KILL_ORPHAN."""

    what: str


@dataclass(slots=True)
class SaveAnswers:
    """Content for the cache of constant answers."""

    data: bytes


@dataclass(slots=True)
class Log:
    """A line for broker.log: `level` as in the logging module's names."""

    level: str
    text: str


@dataclass(slots=True)
class Retire:
    """Take no more clients: remove the record and the socket's name, close the listener."""


@dataclass(slots=True)
class Quit:
    """Everything is drained: leave, and say why."""

    reason: str


Effect = Send | Close | ToEngine | Engine | SaveAnswers | Log | Retire | Quit
