"""Calls of guests that name files: held until the app has found out whether the guest may name them.

A guest's words decide nothing here. The app looks for itself, and says under which real path the engine may open what
the call named, or why it may not. Other calls of the session go on meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import INVALID_PARAMS, NOT_ALLOWED
from ...protocol import jsonrpc as rpc
from ...protocol.framing import LONG
from ...protocol.text import printable
from ...protocol.tools import UNKNOWN_TOOL
from .effects import CheckPaths
from .session import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...protocol.tools import ToolRule
    from .call import Call
    from .dispatcher import Dispatcher
    from .effects import Effect
    from .session import Session

_SHOWN = 120
_NOT_KNOWN = (
    "not executed: this broker does not know that tool, so it can't say whether it reads files of the broker's machine "
    "for a guest. Hint: upgrade mempalace-broker."
)


def refuse_call(session: Session, params: Mapping[str, Any], rule: ToolRule, size: int) -> tuple[int, str] | None:
    """Why a call of `size` bytes is refused at once: code and text; None if it isn't: the host's never are."""
    if session.origin is Origin.HOST:
        return None
    if rule is UNKNOWN_TOOL and session.origin is Origin.GUEST:
        return NOT_ALLOWED, _NOT_KNOWN
    for name, value in _named(params, rule):
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            shown = printable(repr(value)[: 2 * _SHOWN], _SHOWN)
            return INVALID_PARAMS, f"{name}: {shown} is not an absolute path; a relative one means nothing here."
        if size >= LONG:
            return INVALID_PARAMS, f"a call that names files must be shorter than {LONG} bytes."
    return None


class GuestCalls:
    """Passes calls on to the dispatcher: those of guests that name files once they are checked, all others at once."""

    def __init__(self, dispatcher: Dispatcher, reply: Callable[[Call, bytes], None], effects: list[Effect]) -> None:
        self._dispatcher = dispatcher
        self._reply = reply
        self._effects = effects
        self._held: dict[int, Call] = {}

    def submit(self, session: Session, call: Call, params: Mapping[str, Any]) -> None:
        """Take a call that `refuse_call` lets pass."""
        paths = [value for _, value in _named(params, call.rule)] if session.origin is Origin.GUEST else []
        if not paths:
            self._dispatcher.submit(call)
            return
        self._held[call.n] = call
        self._effects.append(CheckPaths(call.conn, call.n, paths))

    def withdraw(self, call: Call) -> bool:
        """Take back a call that no engine has got; whether that was possible."""
        return self._held.pop(call.n, None) is not None or self._dispatcher.scheduler.withdraw(call)

    def checked(self, n: int, real: Mapping[str, str], refusal: str) -> None:
        """The app has looked at the paths of the call `n`: their `real` paths, or why a guest may not name them."""
        call = self._held.pop(n, None)
        if call is None or self._dispatcher.holding:
            return  # withdrawn; or the broker leaves, and the call is settled with the connection
        if refusal:
            self._reply(call, rpc.error_line(call.id, INVALID_PARAMS, refusal))
            return
        call.raw, call.confined = _with_real_paths(call, real), True
        self._dispatcher.submit(call)


def _named(params: Mapping[str, Any], rule: ToolRule) -> list[tuple[str, Any]]:
    """(argument, value) of each argument that names a file."""
    arguments = params.get("arguments")
    if not isinstance(arguments, dict):
        return []
    return [(name, arguments[name]) for name in rule.paths if arguments.get(name)]


def _with_real_paths(call: Call, real: Mapping[str, str]) -> bytes:
    body: Any = rpc.load(call.raw)
    arguments = body["params"]["arguments"]
    for name, value in _named(body["params"], call.rule):
        arguments[name] = real[value]
    return rpc.to_bytes(body)
