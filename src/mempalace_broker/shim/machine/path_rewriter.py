"""Arguments that name files mean the caller's files: made absolute, and translated where the broker sees others.

`mp-shim` imports this module: keep it lean.
"""

from __future__ import annotations

from ...protocol import jsonrpc as rpc
from ...protocol.tools import rule_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ...protocol.jsonrpc import Message
    from .pending_request import PendingRequest


class PathRewriter:
    """The agent's side of paths.

    Args:
        cwd, home: the agent's folders.
        translate: (what the broker told of its files, a path) -> the broker's name for it, or None; asked only
            where the broker has another view of the files.
    """

    __slots__ = ("_cwd", "_home", "_translate")

    def __init__(self, cwd: str, home: str, translate: Callable[[Mapping[str, Any], str], str | None]) -> None:
        self._cwd = cwd
        self._home = home
        self._translate = translate

    def absolute(self, message: Message) -> bool:
        """Make the arguments that name files absolute, in place, against the caller's own folders.

        The broker works elsewhere: "." would name its folder (mempalace#2582). True where something was changed.
        """
        changed = False
        for arguments, name, path in _named(message.params):
            arguments[name] = _absolute(path, self._cwd, self._home)
            changed = changed or arguments[name] != path
        return changed

    def outgoing(self, call: PendingRequest, files: Mapping[str, Any]) -> tuple[bytes, str]:
        """The line to be sent to a broker with another view of the files; b"" and the reason where none can be.

        `call.line` stays as it is: the next broker may be elsewhere.
        """
        body = rpc.load(call.line)
        for arguments, name, path in _named(body["params"]):
            there = self._translate(files, path) if path.startswith("/") else None  # ~user: of this container
            if there is None:
                return b"", (
                    f"{name} {path!r} is a path of this container, and what lies there can't be found by the broker, "
                    "which runs outside. Hint: use a folder that is mounted from the broker's machine, or name the "
                    "pair under [container.paths] in broker.toml."
                )
            arguments[name] = there
        return rpc.to_bytes(body), ""


def _named(params: Mapping[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
    """(arguments, name, path) for each argument of a tool call that names a file."""
    arguments = params.get("arguments")
    if not isinstance(arguments, dict):
        return []
    found = []
    for name in rule_for(params.get("name")).paths:
        path = arguments.get(name)
        if isinstance(path, str) and path and not _is_url(path) and "\0" not in path:
            found.append((arguments, name, path))
    return found


def _is_url(text: str) -> bool:
    """Whether it begins with a scheme; "/x://y" is a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme[:1].isalpha() and all(c.isalnum() or c in "+.-" for c in scheme)


def _absolute(path: str, cwd: str, home: str) -> str:
    """By name only, and no `..` resolved: the engine follows links, we don't."""
    if path.startswith("/"):
        return path
    if path == "~" or path.startswith("~/"):
        base, rest = home, path[2:]
    elif path.startswith("~"):
        return path  # another user's home: the engine knows as much as we do
    else:
        base, rest = cwd, path
    steps = [step for step in rest.split("/") if step not in ("", ".")]
    return "/".join((base.rstrip("/"), *steps)) or "/"
