"""Arguments that name files mean the caller's files: made absolute, and translated where the broker sees others.

`mp-shim` imports this module for the first tool call that names a file: keep it lean.
"""

from __future__ import annotations

from ...protocol import jsonrpc as rpc
from ...protocol.tools import rule_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...protocol.jsonrpc import Message


def make_absolute(message: Message, *, cwd: str, home: str) -> bool:
    """Make the paths of a tool call absolute against the agent's folders, in place; whether one changed.

    The broker runs in another folder: "." would name that one.
    """
    changed = False
    for arguments, name, path in _path_arguments(message.params):
        arguments[name] = _absolute(path, cwd, home)
        changed = changed or arguments[name] != path
    return changed


def _absolute(path: str, cwd: str, home: str) -> str:
    """The absolute path by name only, with each `..` kept: the engine follows links, the shim doesn't."""
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


def paths_in(line: bytes) -> list[str]:
    """The absolute paths in the arguments of a tool call."""
    named = _path_arguments(rpc.load(line)["params"])
    return [path for _, _, path in named if path.startswith("/")]  # ~user is somebody of this container


def with_names(line: bytes, names: Mapping[str, str | None]) -> tuple[bytes, str]:
    """Put the broker's `names` in place of the paths of a tool call.

    Returns:
        The line to send; or b"" and the reason where a path has no name on the broker's side.
    """
    body = rpc.load(line)
    for arguments, name, path in _path_arguments(body["params"]):
        there = names.get(path)
        if there is None:
            return b"", (
                f"{name} {path!r} is a path of this container, and the broker, which runs outside, can't find what "
                "lies there. Hint: use a folder that is mounted from the broker's machine, or name the pair under "
                "[container.paths] in config.toml."
            )
        arguments[name] = there
    return rpc.to_bytes(body), ""


def _path_arguments(params: Mapping[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
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
