"""The admin methods of a broker, `broker/status`, `broker/stop` and the like: who may call them, and their answers.

A guest may ask for the short status, and lower its own rights, which they already are. Whoever names a palace gets an
answer from the broker of that one and no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import errors
from ...protocol import jsonrpc as rpc
from ...protocol.hello import EXCLUSIVE, GUEST, OPEN, RESTART, STATUS, STOP
from ...protocol.text import printable
from .effects import Close, OpenPage, Send, SendStatus
from .session import Origin

if TYPE_CHECKING:
    from ...protocol.jsonrpc import Message
    from .greeting import Host
    from .session import Session

_HOST_ONLY = (STOP, RESTART, EXCLUSIVE, OPEN)
_MAX_REASON = 200  # characters
_GUESTS_MAY_NOT = (
    "not allowed: {method} is for processes of the broker's own machine, and this connection is a guest's (it came "
    "over ssh or TCP, or from a container). Hint: run `mempalace-broker {command}` on the broker's machine."
)


class AdminAnswer(NamedTuple):
    """What follows from an admin method: the answer, the end of the connection, the end of the broker.

    Attributes:
        close: closes the connection once the answer is out, or None.
        stop: why the broker has to leave, "" if it hasn't. at_once: without waiting for running calls.
        again: another one is about to take its place.
        effect: the answer; None: the palace is asked for, and the answer comes when it is free.
    """

    effect: Send | SendStatus | OpenPage | None
    close: Close | None = None
    stop: str = ""
    at_once: bool = False
    again: bool = False


def answer_admin(session: Session, message: Message, host: Host) -> AdminAnswer:
    """Answer the request `message`, whose method begins with "broker/"."""
    method = message.method
    another = host.another(message.params) if method in (STATUS, *_HOST_ONLY) else ""
    if another:
        return _error(session, message, errors.OTHER_PALACE, another)
    if method == STATUS:
        return AdminAnswer(SendStatus(session.conn, message.id, brief=session.origin is Origin.GUEST))
    if method in _HOST_ONLY and session.origin is Origin.GUEST:
        text = _GUESTS_MAY_NOT.format(method=method, command=method.removeprefix("broker/"))
        return _error(session, message, errors.NOT_ALLOWED, text)
    if method in (STOP, RESTART):
        return _stop(session, message, host)
    if method == EXCLUSIVE:
        return AdminAnswer(None)
    if method == OPEN:
        return AdminAnswer(OpenPage(session.conn, message.id))
    if method == GUEST:
        return _lower(session, message, host)
    return _error(session, message, errors.METHOD_NOT_FOUND, f"Unknown method: {method}")


def _stop(session: Session, message: Message, host: Host) -> AdminAnswer:
    command = message.method.removeprefix("broker/")
    line = rpc.result_line(message.id, {"stopping": True, "pid": host.facts.get("pid")})
    given = message.params.get("reason")
    reason = printable(given, _MAX_REASON) if isinstance(given, str) and given else command
    at_once = message.params.get("mode", "drain") == "now"
    return AdminAnswer(Send(session.conn, line), stop=reason, at_once=at_once, again=message.method == RESTART)


def _lower(session: Session, message: Message, host: Host) -> AdminAnswer:
    """The peer says that it speaks for a guest; of that palace and no other."""
    session.origin = Origin.GUEST
    if session.ordinal == 1:
        session.ordinal = 0  # hello may still be the first line
    palace = message.params.get("palace")
    if palace is not None and palace != host.identity.path:
        session.refused = True
        text = f"this broker serves another palace than {str(palace)[:200]!r}, to which this connection is limited."
        refused = _error(session, message, errors.OTHER_PALACE, text)
        return refused._replace(close=Close(session.conn, "a guest of another palace"))
    return AdminAnswer(Send(session.conn, rpc.result_line(message.id, {"origin": Origin.GUEST})))


def _error(session: Session, message: Message, code: int, text: str) -> AdminAnswer:
    return AdminAnswer(Send(session.conn, rpc.error_line(message.id, code, text)))
